"""What the comparisons with PyTorch (run.py) and llama.cpp (published.py) share: running programs, and the Python
environments that the others are installed into."""
import os
import subprocess
import sys
import venv


def output_of(command, environment=None):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    except OSError as error:
        sys.exit(f"{command[0]} does not start: {error.strerror}.")
    if done.returncode:
        sys.exit(f"{command[0]} failed with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def progress(text):
    print(f"{text} ...", file=sys.stderr, flush=True)


def python_with(packages, folder, note=""):
    """The Python of the environment in that folder, which is made and given the packages if it lacks one of them."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        progress(f"Making a Python environment in {folder}")
        venv.create(folder, with_pip=True)
    if subprocess.run([str(python), "-c", "import " + ", ".join(packages)], stderr=subprocess.DEVNULL).returncode:
        progress(f"Installing {', '.join(packages)} into {folder}{note}")
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        if subprocess.run(command).returncode:
            sys.exit(f"pip could not install {', '.join(packages)} into {folder}.")
    return python


def environment_for(threads):
    """The variables of programs that run on so many threads; says it if the machine is busy."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    load = os.getloadavg()[0]
    if load > 0.5 * os.cpu_count():
        print(f"The machine is busy (load {load:.1f} on {os.cpu_count()} processors): these times are not its best.",
              file=sys.stderr)
        # Threads that wait for each other must not take the processor from those that they wait for.
        environment.setdefault("OMP_WAIT_POLICY", "passive")
    return environment
