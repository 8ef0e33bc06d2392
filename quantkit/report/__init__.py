"""Pages of what a verb found: one self-contained HTML file, charts as SVG."""
