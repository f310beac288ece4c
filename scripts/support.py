"""What the tests of deploy/ have in common: Debian's packages, a server in a folder of its own, requests, and a list of checks."""

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADMIN_PASSWORD = "an administrator"


class Checks:
    """Each has a name. All are made, and what failed is said once more at the end."""

    def __init__(self):
        self.failed = []

    def check(self, name, holds, why=""):
        if holds:
            print(f"ok    {name}", flush=True)
        else:
            print(f"FAIL  {name}: {why}", flush=True)
            self.failed.append(name)

    def nothing(self, name, found):
        """Passes if there is nothing to complain of."""
        self.check(name, not found, "; ".join(map(str, found)))

    def end(self):
        if self.failed:
            sys.exit("failed: " + ", ".join(self.failed))


def install(packages):
    """Installs Debian packages whose program is missing, without starting a service. `packages`: program, or the path of any
    file, to package."""
    missing = [package for program, package in packages.items() if not program_path(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"please install {', '.join(missing)}: this machine has no apt-get")
    print(f"installing {', '.join(missing)}", flush=True)
    root = [] if os.getuid() == 0 else ["sudo"]
    # Debian starts a service as soon as it is installed, unless policy-rc.d says no.
    policy = "/usr/sbin/policy-rc.d"
    ours = not os.path.exists(policy)
    if ours:
        subprocess.run([*root, "tee", policy], input=b"#!/bin/sh\nexit 101\n", stdout=subprocess.DEVNULL, check=True)
        subprocess.run([*root, "chmod", "755", policy], check=True)
    try:
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run([*root, "apt-get", "update", "-q"], **quiet)
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-yq", "--no-install-recommends"]
        subprocess.run([*root, *apt, *missing], **quiet)
    finally:
        if ours:
            subprocess.run([*root, "rm", "-f", policy], check=True)


def program_path(program):
    if program.startswith("/"):
        return program if os.path.exists(program) else None
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def environment(name, packages):
    """The folder of a virtual environment with these versions from PyPI, made once for each list of them."""
    folder = ROOT / "target" / name
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_text() != "\n".join(packages):
        if importlib.util.find_spec("ensurepip") is None:
            # No program has this name, so the package is always taken for missing.
            install({"python3-venv": "python3-venv"})
        print(f"installing {', '.join(packages)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([folder / "bin/pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)
        stamp.write_text("\n".join(packages))
    return folder


def run_here(folder):
    """Goes on in the virtual environment."""
    if Path(sys.prefix) != folder:
        python = folder / "bin/python"
        os.execv(python, [python, *sys.argv])


def exports(file):
    """What a file of `export NAME='value'` lines sets, such as target/services.env."""
    lines = (line.removeprefix("export ").split("=", 1) for line in file.read_text().splitlines())
    return {name: value.strip("'") for name, value in lines}


def bare_environment():
    """What a program needs of ours, and no setting of seckill."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


class Distributed:
    """A database, a prefix in Redis and a queue of one's own at the servers of `scripts/services`; gone at the end."""

    def __init__(self, name):
        self.name = f"seckill_{name}_{uuid.uuid4().hex[:8]}"
        file = ROOT / "target/services.env"
        if not file.is_file():
            sys.exit("target/services.env is missing: make services-up")
        self.settings = exports(file)
        # Known to whoever tests.
        self.settings.pop("SECKILL__ADMIN__PASSWORD", None)
        dsn = urllib.parse.urlsplit(self.settings["SECKILL__MYSQL__DSN"])
        self.settings |= {
            "SECKILL__MYSQL__DSN": dsn._replace(path=f"/{self.name}").geturl(),
            "SECKILL__REDIS__KEY_PREFIX": f"{self.name}:",
            "SECKILL__RABBITMQ__QUEUE": self.name,
        }
        self.mysql = ["mariadb", f"--host={dsn.hostname}", f"--port={dsn.port}", f"--user={dsn.username}"]
        self.mysql_password = dsn.password
        host, port = self.settings["SECKILL__REDIS__ADDR"].rsplit(":", 1)
        self.redis = ["redis-cli", "-h", host, "-p", port]

    def __enter__(self):
        self.sql(f"CREATE DATABASE {self.name}")
        return self.settings

    def __exit__(self, *_):
        self.sql(f"DROP DATABASE {self.name}")
        keys = self.ask_redis("--scan", "--pattern", f"{self.name}:*").splitlines()
        if keys:
            self.ask_redis("DEL", *keys)
        self.delete_queues()

    def sql(self, statement):
        secret = os.environ | {"MYSQL_PWD": self.mysql_password}
        subprocess.run([*self.mysql, "-e", statement], env=secret, stdout=subprocess.DEVNULL, check=True, timeout=60)

    def ask_redis(self, *command):
        secret = os.environ | {"REDISCLI_AUTH": self.settings["SECKILL__REDIS__PASSWORD"]}
        done = subprocess.run([*self.redis, *command], env=secret, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def delete_queues(self):
        """Needs `pika` in the environment that runs the script."""
        import pika

        parameters = pika.URLParameters(self.settings["SECKILL__RABBITMQ__URL"])
        parameters.socket_timeout = parameters.blocked_connection_timeout = 10
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        for queue in (self.name, f"{self.name}.dead"):
            channel.queue_delete(queue)
        connection.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, seconds=10.0, pause=0.1):
    """What `what` says once it is true, or its last answer."""
    until = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > until:
            return found
        time.sleep(pause)


class Folder:
    """A folder for one run, and the processes that live in it."""

    def __init__(self, name):
        self.path = Path(tempfile.mkdtemp(prefix=f"seckill-{name}-"))
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.end(process)
        shutil.rmtree(self.path, ignore_errors=True)

    def run(self, name, command, env=None):
        """Starts a program whose output is kept in `name`.log."""
        log = open(self.path / f"{name}.log", "ab")
        process = subprocess.Popen(command, cwd=self.path, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self, name):
        return (self.path / f"{name}.log").read_text(errors="replace")

    @staticmethod
    def end(process, how=signal.SIGTERM):
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cluster(*arguments, check=True):
    """A verb of scripts/cluster."""
    done = subprocess.run([ROOT / "scripts/cluster", *arguments], capture_output=True, text=True, timeout=600)
    if check and done.returncode:
        sys.exit(f"scripts/cluster {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def is_problem(self, status, code):
        """A refusal in the words of the API, and not of a proxy."""
        is_ours = self.headers.get("content-type", "").startswith("application/problem+json")
        return self.status == status and is_ours and self.json().get("code") == code


def request(port, method, path, body=None, token=None, headers=None, timeout=10):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        return send(connection, method, path, body, token, headers)
    finally:
        connection.close()


def send(connection, method, path, body=None, token=None, headers=None):
    headers = dict(headers or {})
    if token:
        headers["authorization"] = f"Bearer {token}"
    if isinstance(body, dict):
        body = json.dumps(body)
        headers["content-type"] = "application/json"
    connection.request(method, path, body=body, headers=headers)
    reply = connection.getresponse()
    return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())


def seckill_binary():
    """The program that is tested."""
    binary = Path(os.environ.get("SECKILL_BIN", ROOT / "target/debug/seckill")).resolve()
    if not binary.is_file():
        sys.exit(f"{binary} is missing: build it, or name another one in SECKILL_BIN")
    return binary


class Server:
    """seckill on a free port, with its data in `folder`."""

    def __init__(self, folder, **settings):
        self.folder, self.port = folder, free_port()
        self.env = bare_environment() | {
            "SECKILL__SERVER__PORT": str(self.port),
            "SECKILL__ADMIN__PASSWORD": ADMIN_PASSWORD,
            "SECKILL__AUTH__BCRYPT_COST": "4",
            "SECKILL__LIMITS__AUTH_PER_MINUTE": "0",
        }
        self.env |= settings
        self.start()
        self.admin = self.log_in("admin", ADMIN_PASSWORD)

    def start(self):
        """Also again, with what it kept."""
        self.process = self.folder.run("seckill", [str(seckill_binary()), "serve"], self.env)
        if not eventually(self.is_ready, 20):
            sys.exit("seckill did not start:\n" + self.folder.log("seckill"))

    def is_ready(self):
        try:
            return request(self.port, "GET", "/readyz").status == 200
        except OSError:
            return False

    def log_in(self, username, password):
        return self.call("POST", "/login", {"username": username, "password": password}).json()["access_token"]

    def call(self, method, path, body=None, token=None):
        return request(self.port, method, path, body, token)

    def new_buyer(self, name):
        credentials = {"username": name, "password": "correct horse"}
        return self.call("POST", "/register", credentials).json()["access_token"]

    def new_product(self, **fields):
        product = {"name": "Sneaker", "price_cents": 19900, "stock": 100} | fields
        return self.call("POST", "/products", product, self.admin).json()["id"]

    def metrics(self):
        return self.call("GET", "/metrics").body.decode()


def in_background(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
