"""How results are shown: figures and their names, text, HTML and its templates, pictures.

Nothing is measured here; what is shown is handed in.
"""
