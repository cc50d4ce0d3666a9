"""``kappa-rtl cosim``: the job, the run with the RTL and the golden model in lockstep, and the page that reports it."""
