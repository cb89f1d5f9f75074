"""A page to look at one run or several: `python -m mscgan.report RUN [RUN ...] [--out report.html]`.

    reading.py    what a run's folder says: configuration, scores, curve, checkpoint, launch
    scores.py     evaluation.json, and its tables
    plots.py      the curves of metrics.jsonl, a small plot a term
    images.py     samples, and the best and the worst pairs, made again from weights and shards
    page.html     the page, which __main__.py fills

The page is one file: no script, no font, nothing from elsewhere. Nothing imports this package.
"""
