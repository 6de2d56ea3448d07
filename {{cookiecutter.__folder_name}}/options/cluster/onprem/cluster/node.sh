# What Ray's processes need on these machines, and where `ray` is; onprem.yaml puts it into ~/.bashrc.
export RAY_AUTH_MODE=token
# As in runtime.py: what a batch frees, the next one uses, and what a worker has loaded, the next task.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 \
    RAY_idle_worker_killing_time_threshold_ms=60000
# As many open files as the machine allows: Ray has a few for every worker and every other machine.
ulimit -n "$(ulimit -H -n)"
. ~/{{ cookiecutter.project_slug }}/.venv/bin/activate
