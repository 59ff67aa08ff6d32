"""The bench of many calls one after another: does each leave the box as it was?"""
