"""`ebpf-lb lab tutorial`: Services from a Deployment on, step by step, in a lab.

Each step is a file in `steps`: a title, a text that says what it shows, and a function that does
it. What a step prints is what was seen; where that is not as the text says, the step fails.
"""
