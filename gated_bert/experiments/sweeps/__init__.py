"""Many runs: jobs, backends, progress."""
