"""Reports of results: one self-contained HTML file each, with charts as SVG."""
