"""Requests a second that servers answer in time: an open-loop client, a search, servers as users write them."""
