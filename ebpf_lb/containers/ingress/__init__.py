"""An ingress controller: what ingress-nginx is in other clusters, as far as a lab needs it.

It runs in a pod behind the Service ingress-nginx/ingress-nginx-controller (`deploy.yaml`), follows
Ingresses, IngressClasses, Services, EndpointSlices and Secrets, and keeps an nginx of the
distribution going. `rules` turns objects into hosts and paths and does no I/O; `render` makes
nginx's configuration of them by a template; `nginx` starts it and lets it read a new one, so that
no connection is lost; `controller` ties them together and writes the Ingresses' addresses.

nginx sends requests straight to the pods, as ingress-nginx does: it is a client of the Services'
EndpointSlices, not of their ClusterIPs.
"""
