"""What each language needs, and what it gives: the commands that the runs start, and versions."""

import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .cases import CASES, ENDING
from .place import Failed, Missing

PING = "ping/v1/ping.proto"
INTEROP = "interop/v1/interop.proto"

UNIX, ABSTRACT, TCP = "`unix:`", "`unix-abstract:`", "TCP"


@dataclass
class Client:
    """A client library, in one way of using it."""

    label: str
    # The command before an address and cases.
    command: list
    transports: list
    # Those of all cases that it can run; None for all of them.
    cases: list | None = None
    env: dict = field(default_factory=dict)


@dataclass
class Server:
    """A server, in the command before its address."""

    label: str
    command: list
    transports: list
    env: dict = field(default_factory=dict)
    # As a client's.
    cases: list | None = None


@dataclass
class Built:
    """What a language gives after it was built."""

    versions: dict
    clients: list = field(default_factory=list)
    server: Server | None = None
    # The example client's command before its address.
    example: list = field(default_factory=list)
    env: dict = field(default_factory=dict)
    # Whatever else, by name.
    programs: dict = field(default_factory=dict)


def rust(place):
    place.need("cargo")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or place.root / "target").absolute()
    env = {"CARGO_TARGET_DIR": target}
    place.command("cargo", "build", "--locked", "--bin", "samehost", cwd=place.root, env=env)
    # Cargo leaves out of the copy what these tests do not use.
    folder = place.root / "tests/interop"
    shutil.copy(place.root / "Cargo.lock", folder)
    place.command("cargo", "build", cwd=folder, env=env)
    program = target / "debug/samehost-interop"
    version = place.command(target / "debug/samehost", "--version").split()[-1]
    transports = [UNIX, ABSTRACT, TCP]
    return Built(
        versions={"samehost": version},
        clients=[Client("Rust, samehost", [program, "client"], transports)],
        server=Server("samehost", [program, "serve"], transports),
        programs={"samehost": target / "debug/samehost", "testing": [program, "testing"]},
    )


def python(place):
    stubs, venv = place.cache / "python", place.cache / "venv"
    interpreter = venv / "bin/python"
    stubs.mkdir(exist_ok=True)
    if not interpreter.exists():
        place.command(sys.executable, "-m", "venv", venv)
    driver = place.drivers / "python"
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    place.command(*pip, cwd=driver)
    paths = [f"-I{path}" for path in place.protos]
    out = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    place.command(interpreter, "-m", "grpc_tools.protoc", *paths, *out, PING, INTEROP)
    env = {"PYTHONPATH": stubs, "PYTHONDONTWRITEBYTECODE": "1"}
    program = [interpreter, driver / "driver.py"]
    listed = json.loads(place.command(interpreter, "-m", "pip", "list", "--format", "json"))
    packages = {package["name"]: package["version"] for package in listed}
    transports = [UNIX, ABSTRACT, TCP]
    return Built(
        versions={
            "Python": sys.version.split()[0],
            "grpcio": packages["grpcio"],
            "protobuf (Python)": packages["protobuf"],
        },
        clients=[
            Client("Python, grpcio", [*program, "client"], transports, env=env),
            Client("Python, grpc.aio", [*program, "aio"], transports, env=env),
        ],
        server=Server("Python, grpcio", [*program, "serve"], transports, env=env),
        example=[interpreter, place.clients / "python/client.py"],
        env=env,
    )


def node(place):
    place.need("node", "npm")
    for folder in place.clients / "node", place.drivers / "node":
        place.command("npm", "ci", "--ignore-scripts", cwd=folder)
    folder = place.drivers / "node"
    manifest = folder / "node_modules/@grpc/grpc-js/package.json"
    program = ["node", folder / "driver.js"]
    # There is no abstract socket in grpc-js's names.
    transports = [UNIX, TCP]
    return Built(
        versions={
            "Node": place.command("node", "--version").strip().removeprefix("v"),
            "@grpc/grpc-js": json.loads(manifest.read_text())["version"],
        },
        clients=[Client("Node, grpc-js", [*program, "client"], transports)],
        server=Server("Node, grpc-js", [*program, "serve"], transports),
        example=["node", place.clients / "node/client.js"],
    )


def grpclib(place):
    stubs, venv = place.cache / "grpclib", place.cache / "grpclib-venv"
    interpreter = venv / "bin/python"
    stubs.mkdir(exist_ok=True)
    if not interpreter.exists():
        place.command(sys.executable, "-m", "venv", venv)
    driver = place.drivers / "grpclib"
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    place.command(*pip, cwd=driver)
    paths = [f"-I{path}" for path in place.protos]
    plugin = f"--plugin={venv}/bin/protoc-gen-grpclib_python"
    out = [f"--python_out={stubs}", plugin, f"--grpclib_python_out={stubs}"]
    place.command(interpreter, "-m", "grpc_tools.protoc", *paths, *out, PING, INTEROP)
    env = {"PYTHONPATH": stubs, "PYTHONDONTWRITEBYTECODE": "1"}
    program = [interpreter, driver / "driver.py"]
    listed = json.loads(place.command(interpreter, "-m", "pip", "list", "--format", "json"))
    packages = {package["name"]: package["version"] for package in listed}
    transports = [UNIX, ABSTRACT, TCP]
    # It does not compress.
    cases = [case for case in CASES + ENDING if case != "gzip"]
    return Built(
        versions={"grpclib": packages["grpclib"]},
        clients=[Client("Python, grpclib", [*program, "client"], transports, cases, env)],
        server=Server("Python, grpclib", [*program, "serve"], transports, env, cases),
    )


def connect(place):
    place.need("node", "npm")
    driver = place.drivers / "connect"
    place.command("npm", "ci", "--ignore-scripts", cwd=driver)
    services = [f"grpc/{name}/v1/{name}.proto" for name in ("health", "reflection")]
    out = ["--include_imports", f"--descriptor_set_out={driver}/protos.bin"]
    place.protoc(*out, protos=[PING, INTEROP, *services])
    manifest = driver / "node_modules/@connectrpc/connect-node/package.json"
    program = ["node", driver / "driver.js"]
    # Node gives every abstract name the full length of a socket address, in zeros.
    transports = [UNIX, TCP]
    # It has no package for reflection.
    cases = [case for case in CASES + ENDING if case != "reflection"]
    return Built(
        versions={"connect-node": json.loads(manifest.read_text())["version"]},
        clients=[Client("Node, connect-node", [*program, "client"], transports)],
        server=Server("Node, connect-node", [*program, "serve"], transports, cases=cases),
    )


def ruby(place):
    place.debian("ruby-grpc", "protobuf-compiler", "protobuf-compiler-grpc", "libprotobuf-dev")
    stubs = place.cache / "ruby"
    stubs.mkdir(exist_ok=True)
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_ruby_plugin')}"
    out = [f"--ruby_out={stubs}", plugin, f"--grpc_out={stubs}"]
    place.protoc(*out, protos=[PING, INTEROP, "grpc/reflection/v1/reflection.proto"])
    program = ["ruby", "-I", stubs, place.drivers / "ruby/driver.rb"]
    transports = [UNIX, ABSTRACT, TCP]
    # It has no package for reflection, and compresses for all clients or for none.
    cases = [case for case in CASES + ENDING if case not in ("reflection", "gzip")]
    return Built(
        versions={
            "Ruby": place.command("ruby", "--version").split()[1],
            "grpc (Ruby, Debian)": place.debian_version("ruby-grpc"),
        },
        clients=[Client("Ruby, Debian's grpc", [*program, "client"], transports)],
        server=Server("Ruby, Debian's grpc", [*program, "serve"], transports, cases=cases),
    )


def go(place):
    place.need("go")
    driver = place.drivers / "go"
    # protoc's plugins, and gRPC's own client and server.
    place.command("go", "build", "-o", f"{place.bin}/", "tool", cwd=driver)
    plugins = [f"--plugin={place.bin}/protoc-gen-{name}" for name in ("go", "go-grpc")]
    for module, folder, protos in (
        ("example", place.clients / "go", [PING]),
        ("driver", driver, [PING, INTEROP]),
    ):
        # Which Go package each proto's stubs are in: the protos do not say it.
        packages = [f"M{proto}={module}/{proto.split('/')[0]}v1" for proto in protos]
        flags = ",".join([f"module={module}", *packages])
        out = [f"--go_out={flags}:{folder}", f"--go-grpc_out={flags}:{folder}"]
        place.protoc(*plugins, *out, protos=protos)
        place.command("go", "build", "-o", place.bin / f"go-{module}", ".", cwd=folder)
    modules = ["google.golang.org/grpc", "connectrpc.com/connect"]
    listed = place.command("go", "list", "-m", *modules, cwd=driver).split()
    program = place.bin / "go-driver"
    return Built(
        versions={
            "Go": place.command("go", "env", "GOVERSION").strip().removeprefix("go"),
            "grpc-go": listed[1].removeprefix("v"),
            "connect-go": listed[3].removeprefix("v"),
        },
        clients=[
            Client("Go, grpc-go", [program, "client"], [UNIX, ABSTRACT, TCP]),
            Client("Go, own dialer", [program, "dialer"], [UNIX]),
            # Less those that its users would write with grpc-go's packages.
            Client("Go, connect-go", [program, "connect"], [UNIX, TCP], cases=[
                "unary", "watch", "collect", "converse", "metadata", "status", "deadline",
                "cancel", "sizes", "gzip", "parallel", "health",
            ]),
        ],
        server=Server("Go, grpc-go", [program, "serve"], [UNIX, ABSTRACT, TCP]),
        example=[place.bin / "go-example"],
        programs={
            "client": place.bin / "client",
            "server": place.bin / "server",
            "driver": program,
        },
    )


def java(place):
    place.need("java", "javac", "mvn")
    driver, client = place.drivers / "java", place.clients / "java"
    # The plugin takes one directory of protos.
    for proto in PING, INTEROP:
        [source] = [path / proto for path in place.protos if (path / proto).exists()]
        copy = driver / "target/proto" / proto
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    classpath = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath"
    options = ["--quiet", "--batch-mode", f"-Dmaven.repo.local={place.cache}/m2"]
    for folder in driver, client:
        goals = ["package", classpath, "-Dmdep.outputFile=target/classpath"]
        place.command("mvn", *options, *goals, cwd=folder)

    def program(folder, main):
        jars = (folder / "target/classpath").read_text().strip()
        return ["java", "-cp", f"{folder}/target/classes:{jars}", main]

    command = program(driver, "driver.Driver")
    pom = (driver / "pom.xml").read_text()
    return Built(
        versions={
            "Java": place.command("java", "--version").split()[1],
            "grpc-java": re.search("<grpc>(.*)</grpc>", pom)[1],
            "netty": re.search("<netty>(.*)</netty>", pom)[1],
        },
        clients=[
            Client("Java, grpc-netty", [*command, "client"], [UNIX, TCP]),
            # The abstract socket is netty's: a path that begins with NUL.
            Client("Java, DomainSocketAddress", [*command, "socket"], [UNIX, ABSTRACT]),
        ],
        server=Server("Java, grpc-netty", [*command, "serve"], [UNIX, TCP]),
        example=program(client, "example.Client"),
    )


def cpp(place):
    place.need("g++", "make")
    packages = ["libgrpc++-dev", "libprotobuf-dev", "protobuf-compiler", "protobuf-compiler-grpc"]
    place.debian(*packages, "pkg-config")
    for folder in place.clients / "cpp", place.drivers / "cpp":
        place.command("make", "-j2", cwd=folder)
    program = place.drivers / "cpp/driver"
    transports = [UNIX, ABSTRACT, TCP]
    return Built(
        versions={
            "g++": place.command("g++", "-dumpfullversion").strip(),
            "grpc++ (Debian)": place.debian_version("libgrpc++-dev"),
        },
        clients=[Client("C++, Debian's grpc++", [program, "client"], transports)],
        server=Server("C++, Debian's grpc++", [program, "serve"], transports),
        example=[place.clients / "cpp/client"],
    )


# Go modules of programs that people hold in the hand.
TOOLS = {
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.93.0",
    "grpc-health-probe": "github.com/grpc-ecosystem/grpc-health-probe@v0.4.61",
}


def tools(place):
    place.need("go", "openssl")
    packages = {
        "curl": "curl", "h2load": "nghttp2-client", "nginx": "nginx", "HAProxy": "haproxy",
    }
    place.debian(*packages.values())
    for name, module in TOOLS.items():
        if not (place.bin / name).exists():
            place.command("go", "install", module, env={"GOBIN": place.bin})
    versions = {name: module.rpartition("@v")[2] for name, module in TOOLS.items()}
    versions |= {name: place.debian_version(package) for name, package in packages.items()}
    return Built(versions=versions)


ALL = {
    "rust": rust, "python": python, "grpclib": grpclib, "node": node, "connect": connect,
    "ruby": ruby, "go": go, "java": java, "cpp": cpp, "tools": tools,
}


def build(place, names):
    """Builds the languages, the Rust side always; gives what was built, and why some were not."""
    built, left = {}, {}

    def one(name):
        try:
            built[name] = ALL[name](place)
            place.say(f"{name} is built")
        except Missing as missing:
            left[name] = str(missing)

    # Downloads and compilers take turns; more at a time would only be in each other's way.
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(one, name) for name in dict.fromkeys(["rust", *names])]:
            done.result()
    if "rust" in left:
        raise Failed(left["rust"])
    # In the order of ALL, whichever was ready first.
    return {name: built[name] for name in ALL if name in built}, left
