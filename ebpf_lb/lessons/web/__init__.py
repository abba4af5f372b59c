"""The page: a lab as a drawing that lives, in a browser on this machine.

server      what is served where; `guard` refuses whoever is not the page itself
live        follows the API server and the agents, and tells of every change
scene       what the page draws, as a pure function of the objects
trace       one request, captured: its way and who rewrote what, as data and as a drawing
actions     what can be changed by a click; `routes` breaks and mends the way to a node's pods
static      the page itself: ES modules and SVG, as they are, without a build step
"""
