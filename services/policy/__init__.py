"""May it?"""
