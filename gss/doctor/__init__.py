"""`gss doctor`: looks whether this machine, this cluster and the experiments are ready, before anything is started."""
