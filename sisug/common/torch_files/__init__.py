"""Files of torch and of pickle as data (every stage): nothing that they name is run, and they take no more time and
memory than their size asks for.
"""
