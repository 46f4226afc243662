"""Can we afford it?"""
