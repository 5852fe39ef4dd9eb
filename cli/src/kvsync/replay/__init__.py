"""`kvsync replay`: a trace against a running server, or against engines in virtual time; one report for both."""
