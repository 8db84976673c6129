"""The request path of one replica, from the accepted connection to the answer."""
