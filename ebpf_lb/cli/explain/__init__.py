"""What becomes of a new connection, and why: one topic a file.

`ends`: who asks whom; `near`: what there is where nothing is; `endpoints`: who may be chosen, and
who not; `steps`: the way there and back; `beyond`: what may stop packets elsewhere; `flow`: a
connection that exists; `explanation`: what was found, as text and JSON; `drawing`: a picture of it.
"""
