"""Lessons: real connections through a lab, captured at every hop and drawn.

    catalog     what there is: a folder a scenario, with manifests.yaml and scenario.yaml
    run         applies the manifests and has the connection recorded
    record      one connection (`connect`, in the client's namespace), captured; `associate` is
                SCTP's where the kernel has none
    capture     AF_PACKET sockets in all namespaces; `recording` is what they yield
    stack       what the nodes' own stacks see in between; `hooks` tells from it who rewrote
    frames      Ethernet frames taken apart
    way         the packets of the connection known again from hop to hop (`identity`), and what
                changed where
    text, svg   the drawing

From `recording` on, everything is a pure function of what was captured; nothing there knows what a
Service ought to do, so a wrong rewrite or a lost packet is drawn as faithfully as a right one.
"""
