"""A page to play with a trained run: `python -m mscgan.web --run RUN`.

    __main__.py   the command: a port of this machine, and the server on it
    app.py        what is asked for -> what is answered, as JSON
    guard.py      whom it answers, how often and how much it reads
    turns.py      the one queue around the model
    studio.py     what the page works with: a photograph's frame and pose, a pose's text, people of the shards, pictures
    page.html     the page: one file, which asks for nothing but these answers

Nothing that is sent is kept: the browser has the picture and the pose, and sends both each time. Nothing imports this
package.
"""
