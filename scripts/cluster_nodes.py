"""A node of `scripts/cluster`: a server in a network namespace of its own. A bridge without a way out joins them all.

So every node has an address and the usual ports, no address of the machine listens, and a node is cut off, both ways and
silently as when a cable is pulled, by taking its end off the bridge: no firewall is needed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from support import ROOT, program_path

DIR = ROOT / "target/cluster"
BRIDGE = "seckill"
# Set aside for tests of networks (RFC 2544): nothing that a machine must reach is there.
NETWORK = "198.18.77."
UP_WITHIN = 90


def run(*command, check=True, timeout=60, **more):
    """What a command printed. With `check=False` nothing if it failed or took too long."""
    more = {"stdin": subprocess.DEVNULL} | more
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, **more)
    except subprocess.TimeoutExpired:
        if not check:
            return ""
        sys.exit(f"cluster: {command[0]} took more than {timeout} s")
    if done.returncode == 0:
        return done.stdout
    if check:
        sys.exit(f"cluster: {' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return ""


def links():
    """Name to what is known of it, of every network device."""
    return {link["ifname"]: link for link in json.loads(run("ip", "-j", "link", "show"))}


def claim_bridge():
    """Makes the bridge. There is one on a machine, and its alias says which folder's it is."""
    owner = links().get(BRIDGE, {}).get("ifalias")
    if owner is None:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "alias", DIR)
        run("ip", "addr", "add", f"{NETWORK}1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
    elif owner != str(DIR):
        sys.exit(f"cluster: there is one already, in {owner}")


def is_ours():
    return links().get(BRIDGE, {}).get("ifalias") == str(DIR)


def processes():
    """Network namespace to the ids of the processes in it."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.setdefault(os.stat(f"/proc/{pid}/ns/net").st_ino, []).append(int(pid))
        except OSError:
            pass  # It has ended.
    return found


def process_state(pid):
    """The letter of proc(5), or nothing for one that is gone or only waits to be buried."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rsplit(") ", 1)[1][0]
    except OSError:
        return ""
    return "" if state in "ZX" else state


class Node:
    """Of a kind of server. Each kind says how it is started (`launch`), asked (`is_ready`) and what it is (`role`)."""

    port = 0

    def __init__(self, name, number):
        self.name, self.address = name, f"{NETWORK}{number}"
        self.namespace, self.link, self.dir = f"seckill-{name}", f"sk-{name}", DIR / name
        self.pid_file = self.dir / "server.pid"

    def __str__(self):
        return f"{self.address}:{self.port}"

    # ---- network ------------------------------------------------------------------------------------

    def connect(self):
        if not self.has_namespace():
            run("ip", "netns", "add", self.namespace)
        if self.link not in links():
            run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
            inside = ("ip", "-n", self.namespace)
            run(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
            # No route leads further: nobody outside of the bridge gets an answer.
            run(*inside, "link", "set", "eth0", "up")
            run(*inside, "link", "set", "lo", "up")
            run("ip", "link", "set", self.link, "master", BRIDGE, "up")

    def disconnect(self):
        if self.link in links():
            run("ip", "link", "del", self.link)
        if self.has_namespace():
            run("ip", "netns", "del", self.namespace)

    def has_namespace(self):
        return os.path.exists(f"/run/netns/{self.namespace}")

    def namespace_id(self):
        return os.stat(f"/run/netns/{self.namespace}").st_ino if self.has_namespace() else None

    def is_cut(self):
        link = links().get(self.link)
        return link is not None and link.get("master") != BRIDGE

    def cut_to(self, island):
        run("ip", "link", "set", self.link, "master", island)

    def mend(self):
        island = links()[self.link].get("master")
        self.cut_to(BRIDGE)
        if island != BRIDGE and not any(link.get("master") == island for link in links().values()):
            run("ip", "link", "del", island)

    def inside(self, *command):
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def ask(self, *command, env=None, check=False, timeout=10, **more):
        """Runs a store's own client in the node's namespace: a node that is cut off answers, too."""
        return run(*self.inside(*command), env=os.environ | (env or {}), check=check, timeout=timeout, **more)

    # ---- process ------------------------------------------------------------------------------------

    def pid(self):
        """Of the server, or nothing. A stale file's number may be another program's, but that is not in the namespace."""
        try:
            pid = int(self.pid_file.read_text())
            is_here = os.stat(f"/proc/{pid}/ns/net").st_ino == self.namespace_id()
        except (OSError, ValueError):
            return None
        return pid if is_here and process_state(pid) else None

    def is_frozen(self):
        pid = self.pid()
        return pid is not None and process_state(pid) == "T"

    def state(self):
        pid = self.pid()
        condition = "down" if pid is None else "frozen" if process_state(pid) == "T" else "up"
        return f"{condition}, cut" if self.is_cut() else condition

    def answers(self):
        """Whether it is worth asking."""
        return self.pid() is not None and not self.is_frozen()

    def spawn(self, *command, env=None):
        """Starts the server, which outlives us. Each program on the way to it replaces the one before, so the id is its own."""
        with open(self.dir / "server.log", "ab") as log:
            process = subprocess.Popen(
                self.inside(*command), env=os.environ | (env or {}), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))

    def start(self):
        if self.pid() is None:
            self.dir.mkdir(exist_ok=True)
            self.launch()

    def wait(self, what=None, seconds=UP_WITHIN):
        what = what or self.is_ready
        until = time.monotonic() + seconds
        while not what():
            if self.pid() is None or time.monotonic() > until:
                print("\n".join(self.log().splitlines()[-20:]), file=sys.stderr)
                sys.exit(f"cluster: {self.name} {'has ended' if self.pid() is None else 'is not ready'} (log: {self.dir}/server.log)")
            time.sleep(0.1)

    def log(self):
        return (self.dir / "server.log").read_text(errors="replace")

    def signal(self, number):
        pid = self.pid()
        if pid is None:
            sys.exit(f"cluster: {self.name} is down")
        os.kill(pid, number)
        # A process takes a signal when it is next scheduled.
        wanted = {signal.SIGKILL: "", signal.SIGSTOP: "T"}.get(number)
        until = time.monotonic() + 5
        while wanted is not None and process_state(pid) != wanted and time.monotonic() < until:
            time.sleep(0.005)

    def end_all(self, found):
        """Kills all that runs in the namespace, where only we start anything. Its data go as well, so nothing is owed to it."""
        for pid in found.get(self.namespace_id(), []):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def private_file(self, name, text):
        """Has passwords in it."""
        path = self.dir / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def make_island(node):
    """A bridge for nodes that are cut off together: they still see each other."""
    name = f"cut-{node.name}"
    if name not in links():
        run("ip", "link", "add", name, "type", "bridge")
        run("ip", "link", "set", name, "up")
    return name


def remove(nodes):
    """Ends and forgets everything."""
    until = time.monotonic() + 10
    while True:
        found = processes()
        left = [node for node in nodes if found.get(node.namespace_id())]
        if not left:
            break
        if time.monotonic() > until:
            sys.exit(f"cluster: {', '.join(node.name for node in left)} cannot be ended")
        for node in left:
            node.end_all(found)
        time.sleep(0.05)
    islands = {links().get(node.link, {}).get("master") for node in nodes} - {None, BRIDGE}
    for node in nodes:
        node.disconnect()
    for bridge in [*islands, BRIDGE]:
        run("ip", "link", "del", bridge)
    shutil.rmtree(DIR, ignore_errors=True)


def program(name):
    return program_path(name) or sys.exit(f"cluster: {name} is missing")
