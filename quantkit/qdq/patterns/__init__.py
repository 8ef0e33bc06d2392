"""Parts of networks that the placement of Q/DQ pairs recognises by their structure."""
