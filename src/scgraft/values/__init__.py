"""The frozen values that flow between functions, one file a noun."""
