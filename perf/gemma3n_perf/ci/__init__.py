"""What the workflows run, as commands that run on any machine.

Opinion: whatever handles what a stranger can write (an event, an artifact, a pull request's text) is small, and where
it holds a token or must answer within seconds it needs nothing but Python itself.
"""
