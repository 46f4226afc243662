"""What happens next?"""
