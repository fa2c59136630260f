"""The demo (synthesis): a page to draw on, whose picture follows each stroke; `sisug demo`.

Our choice: a canvas of our own and a light server (Starlette, uvicorn) in place of gradio's ImageEditor. That one
smooths the edges of its strokes, so that a mask's colors are no classes any longer; it names no colors, has no bucket,
and sends a drawing as a file when a stroke has ended, while here class numbers are sent while the brush moves.
"""
