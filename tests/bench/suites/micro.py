"""x"""
def run(a, r): pass
