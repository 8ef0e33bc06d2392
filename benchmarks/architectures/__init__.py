"""Small networks of many architectures, trained in minutes, so that a default is not chosen for a few networks."""
