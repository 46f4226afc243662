"""What does a model say?"""
