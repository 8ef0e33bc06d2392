"""Arguments of the command line: groups of options, texts → values, options without effect, files that are implied."""
