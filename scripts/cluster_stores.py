"""The servers of `scripts/cluster`: how each is set up, how it is asked, and when each cluster is whole."""

import json
import pwd
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor

from cluster_nodes import DIR, Node, program, run

# How long a Redis must be silent until the others take its place.
REDIS_SILENT_MS = 1500
SENTINEL_NAME = "seckill"


def together(work, items):
    """`work` of each item, all at once; an item's failure is ours."""
    items = list(items)
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(work, items))


class Secrets:
    """Of this cluster, for as long as its data."""

    def __init__(self):
        file = DIR / "secrets.json"
        if not file.exists():
            file.touch(mode=0o600)
            lengths = {"mysql": 16, "redis": 16, "amqp": 16, "erlang": 16, "jwt": 32, "admin": 8}
            file.write_text(json.dumps({name: secrets.token_hex(length) for name, length in lengths.items()}))
        self.__dict__.update(json.loads(file.read_text()))


class Redis(Node):
    port = 6379

    def launch(self):
        # Written once: Sentinel changes it, and so a server that comes back is not the master again.
        if not (self.dir / "redis.conf").exists():
            # Nothing is kept on disk, as in scripts/services: no gate of an earlier process is ever believed.
            self.private_file("redis.conf", (
                f"bind {self.address}\nport {self.port}\ndir {self.dir}\nrequirepass {Secrets().redis}\nmasterauth {Secrets().redis}\n"
                f"maxmemory-policy noeviction\nsave \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n{self.settings()}"
            ))
        self.spawn(program("redis-server"), self.dir / "redis.conf")

    def settings(self):
        return f"cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout {REDIS_SILENT_MS}\ncluster-require-full-coverage no\n"

    def cli(self, *command):
        return self.ask("redis-cli", "-h", self.address, "-p", self.port, *command, env={"REDISCLI_AUTH": Secrets().redis}, timeout=3)

    def is_ready(self):
        return self.cli("PING").strip() == "PONG"

    def role(self):
        lines = self.cli("ROLE").split("\n")
        if lines[0] == "slave":
            return f"replica of {lines[1]}" + ("" if lines[3] == "connected" else f" ({lines[3]})")
        return lines[0] or "silent"


class WatchedRedis(Redis):
    master = None

    def settings(self):
        # A master that is cut off takes no writes once its replicas have been silent for three seconds.
        settings = "min-replicas-to-write 1\nmin-replicas-max-lag 2\n"
        return settings if self.master is None else settings + f"replicaof {self.master.address} {self.port}\n"


class Sentinel(Redis):
    port = 26379
    master = None

    def launch(self):
        if not (self.dir / "sentinel.conf").exists():
            self.private_file("sentinel.conf", (
                f"bind {self.address}\nport {self.port}\ndir {self.dir}\nrequirepass {Secrets().redis}\n"
                f"sentinel monitor {SENTINEL_NAME} {self.master.address} {self.master.port} 2\n"
                f"sentinel auth-pass {SENTINEL_NAME} {Secrets().redis}\n"
                f"sentinel down-after-milliseconds {SENTINEL_NAME} {REDIS_SILENT_MS}\nsentinel failover-timeout {SENTINEL_NAME} 5000\n"
            ))
        self.spawn(program("redis-server"), self.dir / "sentinel.conf", "--sentinel")

    def role(self):
        master = self.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_NAME).split()
        return f"sentinel, master {master[0]}" if master else "silent"


class Rabbit(Node):
    port = 5672
    nodes = ()

    @property
    def erlang_name(self):
        return f"rabbit@{self.address}"

    def env(self):
        return {
            # Where the cookie is, of the servers and of rabbitmqctl.
            "HOME": str(DIR / "erlang"),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODENAME": self.erlang_name,
            "RABBITMQ_NODE_IP_ADDRESS": self.address,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_MNESIA_BASE": str(self.dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.dir / "log"),
            # Else a shell waits for the server, and it would be the shell that is killed.
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_PID_FILE": str(self.dir / "rabbitmq.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.dir / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.dir / "rabbitmq.conf"),
            # One scheduler, which does not spin while it waits: the machine has others to serve. And a node that hangs is given up
            # after 8 to 10 seconds instead of a minute: until then the others let nobody begin to consume from a quorum queue.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel net_ticktime 8",
        }

    def launch(self):
        home = DIR / "erlang"
        home.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            # Written whole: two nodes that start together must not make one each.
            new = self.private_file("cookie.new", Secrets().erlang)
            new.chmod(0o400)
            new.rename(cookie)
        (self.dir / "enabled_plugins").write_text("[].\n")
        others = "".join(f"cluster_formation.classic_config.nodes.{i} = {node.erlang_name}\n" for i, node in enumerate(self.nodes, 1))
        self.private_file("rabbitmq.conf", (
            f"default_user = seckill\ndefault_pass = {Secrets().amqp}\nlisteners.tcp.default = {self.address}:{self.port}\n"
            f"log.console = false\ncluster_formation.peer_discovery_backend = classic_config\n{others}"
            "cluster_formation.randomized_startup_delay_range.min = 0\ncluster_formation.randomized_startup_delay_range.max = 1\n"
            "cluster_partition_handling = pause_minority\n"
        ))
        self.spawn("/usr/lib/rabbitmq/bin/rabbitmq-server", env=self.env())

    def log(self):
        files = sorted((self.dir / "log").glob("*.log"))
        return super().log() + "".join(file.read_text(errors="replace") for file in files)

    def ctl(self, *command, timeout=20):
        return self.ask("/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", "-n", self.erlang_name, *command, env=self.env(), timeout=timeout)

    def is_ready(self):
        # A client is greeted once the node has joined and its queues are there.
        probe = "exec 3<>/dev/tcp/$0/$1 && printf 'AMQP\\0\\0\\11\\1' >&3 && [ -n \"$(head -c 1 <&3 | od -An -tx1)\" ]"
        return self.ask("timeout", 2, "bash", "-c", f"{probe} && echo yes", self.address, self.port) != ""

    def running(self):
        """The addresses of the nodes that run, and whether they know of a partition, as this one sees it."""
        answer = self.ctl("cluster_status", "--formatter", "json")
        # What goes before is a warning of the kind that no option silences.
        status = json.loads(answer[answer.index("{"):]) if "{" in answer else {"running_nodes": [], "partitions": {}}
        return {name.split("@")[1] for name in status["running_nodes"]}, bool(status["partitions"])

    def role(self):
        return "node" if self.is_ready() else "takes no clients"


class Galera(Node):
    port = 3306
    nodes = ()
    user = "mysql"

    def launch(self):
        data = self.dir / "data"
        self.dir.chmod(0o755)
        is_new = not data.exists()
        # Where all have ended the position of each is kept, and they find together again by themselves.
        is_first = is_new and self is self.nodes[0]
        if is_new:
            data.mkdir(mode=0o700)
            self.own(data)
        if is_first:
            run(
                "mariadb-install-db", "--no-defaults", f"--user={self.user}", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=normal",
            )
        self.own(self.dir)
        # As root its copying of a whole database by rsync fails.
        self.spawn(
            program("mariadbd"), "--no-defaults", f"--user={self.user}", f"--datadir={data}", f"--socket={self.dir}/server.sock",
            f"--bind-address={self.address}", f"--port={self.port}", "--skip-name-resolve", "--max-connections=500",
            "--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=1", "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2", "--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
            f"--wsrep-cluster-address=gcomm://{','.join(node.address for node in self.nodes)}", f"--wsrep-node-name={self.name}",
            f"--wsrep-node-address={self.address}", "--wsrep-sst-method=rsync",
            f"--wsrep-provider-options=gmcast.listen_addr=tcp://{self.address}:4567;ist.recv_addr={self.address}:4568;"
            "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.keepalive_period=PT0.5S",
            *(["--wsrep-new-cluster"] if is_first else []),
        )

    def own(self, path):
        shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def sql(self, statement, check=False):
        client = ("mariadb", "--no-defaults", f"--socket={self.dir}/server.sock", "--user=root", "--skip-column-names", "--batch")
        return self.ask(*client, "-e", statement, check=check, timeout=5)

    def wsrep(self):
        return dict(line.split("\t", 1) for line in self.sql("SHOW STATUS LIKE 'wsrep_%'").splitlines() if "\t" in line)

    def is_ready(self):
        return self.wsrep().get("wsrep_local_state_comment") == "Synced"

    def role(self):
        status = self.wsrep()
        if not status:
            return "starts"
        return f"{status['wsrep_local_state_comment']}, {status['wsrep_cluster_status']} of {status['wsrep_cluster_size']}"


def mysql_packet(number, body):
    return (len(body).to_bytes(3, "little") + bytes([number]) + body).hex()


class Proxy(Node):
    """HAProxy: one address for the Galera node that is written to, for any RabbitMQ node, and for the watched Redis that is master."""

    port = 3306
    galera, rabbit, watched = (), (), ()

    def launch(self):
        # Speaks MySQL's protocol 4.1 with a name and no password; a node that has lost its cluster accepts that, and is not ready.
        login = mysql_packet(1, (0x8201).to_bytes(4, "little") + bytes(3) + b"\1" + b"\x21" + bytes(23) + b"haproxy\0\0")
        query = mysql_packet(0, b"\3SHOW STATUS LIKE 'wsrep_ready'")
        ready, quit = b"\x0bwsrep_ready\2ON".hex(), mysql_packet(0, b"\1")
        self.private_file("haproxy.cfg", f"""
global
    stats socket {self.dir}/haproxy.sock mode 600
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 1s
    default-server inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions

# One node takes all, for row locks are local to a node. When the first one is back, what still writes to another is cut off.
listen galera
    bind {self.address}:3306
    option tcp-check
    tcp-check connect
    tcp-check send-binary {login}
    tcp-check expect binary 0200000002000000
    tcp-check send-binary {query}
    tcp-check expect binary {ready}
    tcp-check send-binary {quit}
    server {self.galera[0].name} {self.galera[0]} check on-marked-up shutdown-backup-sessions
{self.servers(self.galera[1:], "backup")}
listen rabbit
    bind {self.address}:5672
    balance leastconn
    option tcp-check
    tcp-check connect
    tcp-check send-binary {b"AMQP".hex()}00000901
    tcp-check expect binary 010000
{self.servers(self.rabbit)}
listen watched
    bind {self.address}:6379
    option tcp-check
    tcp-check connect
    tcp-check send "AUTH {Secrets().redis}\\r\\nINFO replication\\r\\n"
    tcp-check expect string role:master
{self.servers(self.watched)}
""")
        self.spawn(program("haproxy"), "-db", "-f", self.dir / "haproxy.cfg")

    @staticmethod
    def servers(nodes, more=""):
        return "".join(f"    server {node.name} {node} check {more}\n" for node in nodes)

    def serving(self):
        """Of each list the servers that it would send the next client to."""
        rows = self.ask("socat", "-t", 2, "-", f"UNIX-CONNECT:{self.dir}/haproxy.sock", input="show stat\n", stdin=None)
        found = {}
        for fields in (row.split(",") for row in rows.splitlines()):
            if len(fields) > 17 and fields[17].startswith("UP") and fields[1] not in ("FRONTEND", "BACKEND"):
                found.setdefault(fields[0], []).append(fields[1])
        return found | {"galera": found.get("galera", [])[:1]}

    def is_ready(self):
        serving = self.serving()
        return all(serving.get(name) for name in ("galera", "rabbit", "watched"))

    def role(self):
        return ", ".join(f"{name}: {' '.join(nodes)}" for name, nodes in self.serving().items() if nodes) or "nobody to serve"


def make_all():
    redis = [Redis(f"redis{i}", 10 + i) for i in range(1, 7)]
    watched = [WatchedRedis(f"watched{i}", 20 + i) for i in range(1, 4)]
    sentinels = [Sentinel(f"sentinel{i}", 25 + i) for i in range(1, 4)]
    rabbit = [Rabbit(f"rabbit{i}", 30 + i) for i in range(1, 4)]
    galera = [Galera(f"galera{i}", 40 + i) for i in range(1, 4)]
    proxy = Proxy("haproxy", 50)
    for node in watched[1:]:
        node.master = watched[0]
    for node in sentinels:
        node.master = watched[0]
    for node in rabbit:
        node.nodes = rabbit
    for node in galera:
        node.nodes = galera
    proxy.galera, proxy.rabbit, proxy.watched = galera, rabbit, watched
    return {"redis": redis, "watched": watched, "sentinel": sentinels, "rabbit": rabbit, "galera": galera, "haproxy": [proxy]}
