"""Makes the tree of a runtime from a JDK and the libraries of this machine.

Blocking. The rules of what it looks like are in ``tree``; this runs ``jlink`` and ``patchelf``,
copies, and has the new Java write its archive of classes where it will be used: in a root file
system that holds nothing else, so a tree that needs anything of this machine fails here and not
in an image.
Refuses to know controllers and platforms.
"""

import os
import pathlib
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib import resources

from attrs import frozen

from backends.kit import runtime
from broker.runtime import tree
from outside import files, paths, programs, text

MODULES = (
    *("java.base", "java.logging", "java.xml", "java.management", "java.naming", "java.sql"),
    *("java.net.http", "java.instrument", "java.security.jgss", "java.security.sasl", "java.rmi"),
    *("jdk.management", "jdk.unsupported", "jdk.crypto.ec", "jdk.zipfs"),
)
"""What agent.jar and the classes that controllers send it use; the first three run a build."""
_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_TRIPLETS = {"linux/amd64": "x86_64-linux-gnu", "linux/arm64": "aarch64-linux-gnu"}
_ALSO = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""What older C libraries load by themselves to find hosts and users."""
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")
_ELF = b"\x7fELF"
_STATIC_HINT = "apt-get install busybox-static"
_DOCKER_HINT = "docker/docker of an archive in https://download.docker.com/linux/static/stable/"
_HEAD = 4096  # of a program; who loads it is said there
_NOHUP = f"#!{runtime.TOOLS}/sh\ntrap '' HUP\nexec \"$@\"\n"
_SAID_MAX = 4 << 20
_PROGRAM_S = 600.0
_JAR_MAX = 64 << 20
_LIST_MAX = 4 << 20
_RELEASE_MAX = 64 << 10
_LIST = "classes.list"
_RECORDED = "classes.txt"
_DUMP = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xlog:all=off")
_ALIKE = ("-Xrs", "-Xmx256m", "-XX:CICompilerCount=1", "-XX:ActiveProcessorCount=1")
_FIXED = ("env", "-i", "MALLOC_ARENA_MAX=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
_DUMPS = 5  # at most, until two are alike


class BuildError(Exception):
    """It cannot be built; the text says why, and what helps."""


@frozen(kw_only=True)
class Ingredients:
    """What a tree is made of, all of this machine."""

    jdk: pathlib.Path
    jar: pathlib.Path
    busybox: pathlib.Path
    platform: str
    docker: pathlib.Path | None = None  # a static command line of Docker, for builds


def platform_here() -> str:
    """Return this machine's platform. Raises BuildError for one that is not known."""
    machine = platform.machine()
    if machine not in _PLATFORMS:
        known = ", ".join(_PLATFORMS.values())
        raise BuildError(f"this machine is {machine}; a runtime can be made for {known}")
    return _PLATFORMS[machine]


def jdk_here() -> pathlib.Path:
    """Return the JDK of this machine. Raises BuildError."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("jlink", path=f"{home}/bin" if home else None) or shutil.which("jlink")
    if found is None:
        raise BuildError(
            "no jlink on this machine; hint: apt-get install openjdk-17-jdk-headless, or --jdk"
        )
    return pathlib.Path(found).resolve().parents[1]


def busybox_here() -> pathlib.Path:
    """Return a static busybox of this machine. Raises BuildError."""
    found = shutil.which("busybox")
    if found is None:
        raise BuildError(
            f"no busybox on this machine, for images without sh; hint: {_STATIC_HINT}"
        )
    return pathlib.Path(found).resolve()


Tell = Callable[[str], None]


def _silent(_: str) -> None:
    """Tell nobody."""


@frozen(kw_only=True)
class Built:
    """What was made."""

    manifest: runtime.Manifest
    varies: str = ""  # why the same ingredients would give another content the next time


def build(made_of: Ingredients, archive: pathlib.Path, *, tell: Tell = _silent) -> Built:
    """Write the archive of a new tree. Raises BuildError, and OSError for the archive's file.

    ``tell`` is called with what is begun.
    """
    with tempfile.TemporaryDirectory(prefix="agent-runtime-") as folder:
        base = pathlib.Path(folder)
        base.chmod(0o755)
        built = _grow(made_of, base, tell)
        tell("writing the archive")
        with files.replaced(archive) as file:
            tree.write(tree.entries(base), built.manifest, file)
    return built


def _grow(made_of: Ingredients, base: pathlib.Path, tell: Tell) -> Built:
    """Make the tree below ``base``."""
    _check_static(made_of.busybox, hint=_STATIC_HINT)
    if made_of.docker is not None:
        _check_static(made_of.docker, hint=_DOCKER_HINT)
    names, remoting = _jar(made_of.jar)
    of_jdk = _platform_of(made_of.jdk)
    if {made_of.platform, of_jdk} != {platform_here()}:
        raise BuildError(
            f"platform {made_of.platform} with a JDK for {of_jdk}: both have to be those of this "
            f"machine, {platform_here()}, for its Java has to run here once; hint: build it on a "
            "machine of that platform"
        )
    home = _below(base, f"{runtime.ROOT}/jre")
    home.parent.mkdir(parents=True)
    tell(f"making a Java of {made_of.jdk}")
    _link(made_of.jdk, home)
    java = _java_of(home)
    known = files.read(home / "lib" / "classlist", limit=_LIST_MAX).decode().splitlines()
    tell("bringing its libraries, a shell and a locale")
    _libraries(made_of.platform, base, home)
    _tools(made_of, base)
    _locale(base)
    shutil.copyfile(made_of.jar, _below(base, runtime.JAR))
    recorded = resources.files(__package__).joinpath(_RECORDED).read_text().splitlines()
    (base / _LIST).write_text(tree.classes_of(names, known, recorded, java=java))
    tree.settle(base)
    varies = _archive_classes(base, tell)
    tree.settle(base)
    try:
        digest = tree.digest(tree.entries(base), platform=made_of.platform)
    except ValueError as error:
        raise BuildError(f"{made_of.jdk}: {text.clean(str(error))}") from error
    manifest = runtime.Manifest(
        digest=digest,
        platform=made_of.platform,
        java=java,
        remoting=remoting,
    )
    return Built(manifest=manifest, varies=varies)


def _jar(path: pathlib.Path) -> tuple[list[str], str]:
    """Return the names of the files in agent.jar, and its version."""
    try:
        if path.stat().st_size > _JAR_MAX:
            raise BuildError(f"{path}: larger than any agent.jar")
        with zipfile.ZipFile(path) as jar, jar.open("META-INF/MANIFEST.MF") as file:
            lines = file.read(1 << 16).decode("utf-8", "replace").splitlines()
            names = jar.namelist()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BuildError(f"{path}: not an agent.jar: {text.clean(str(error))}") from error
    versions = [line.partition(":")[2].strip() for line in lines if line.startswith("Version:")]
    if "hudson/remoting/Launcher.class" not in names or not versions:
        raise BuildError(f"{path}: not an agent.jar; hint: JENKINS_URL/jnlpJars/agent.jar")
    return names, versions[0]


def _link(jdk: pathlib.Path, home: pathlib.Path) -> None:
    """Have a JDK make a Java of the modules that an agent needs."""
    options = ("--strip-debug", "--no-header-files", "--no-man-pages", "--output", str(home))
    _run(str(jdk / "bin" / "jlink"), "--add-modules", ",".join(MODULES), *options)
    shutil.rmtree(home / "legal", ignore_errors=True)
    for program in (home / "bin").iterdir():
        if program.name != "java":
            program.unlink()


def _platform_of(jdk: pathlib.Path) -> str:
    """Return which platform a JDK is for, by its own word; this one where it has none."""
    try:
        told = tree.release_of(files.read(jdk / "release", limit=_RELEASE_MAX).decode())
    except OSError as error:
        raise BuildError(f"{jdk}: not a JDK: {error.strerror}; hint: its folder") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{jdk}: not a JDK: its file release is not text") from error
    named = (told.get("OS_NAME", "Linux").lower(), told.get("OS_ARCH", ""))
    if named == ("linux", ""):
        return platform_here()
    return _PLATFORMS.get(named[1], "/".join(named)) if named[0] == "linux" else "/".join(named)


def _java_of(home: pathlib.Path) -> str:
    release = tree.release_of((home / "release").read_text())
    return release.get("JAVA_VERSION", "")


def _libraries(for_platform: str, base: pathlib.Path, home: pathlib.Path) -> None:
    """Bring every library that Java needs, and have its programs look for them there alone.

    The search path is that of the files, not of the environment, which builds would inherit.
    """
    folder = _below(base, runtime.LIBRARIES)
    folder.mkdir()
    own = [path for path in sorted(home.rglob("*")) if paths.is_regular(path) and _is_elf(path)]
    inside = {path.name for path in own}
    wanted = {name for path in own for name in _needed(path)} - inside
    loader = ""
    while wanted:
        name = wanted.pop()
        found = _library(name, for_platform)
        content = found.read_bytes()
        if name.startswith("ld-linux"):
            loader = name
        if name == "libc.so.6":
            try:
                content = tree.relocated(content)
            except ValueError as error:
                raise BuildError(f"{found}: {error}") from error
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
        wanted |= {n for n in _needed(found) if not paths.exists(folder / n)} - inside
    for name in _ALSO:
        if (found_one := _found_library(name, for_platform)) is not None:
            shutil.copyfile(found_one, folder / name)
    if not loader:
        raise BuildError("the JDK is not one for glibc; hint: one of Debian, or Temurin")
    places = f"{runtime.ROOT}/jre/lib:{runtime.ROOT}/jre/lib/server:{runtime.LIBRARIES}"
    for path in own:
        _run("patchelf", "--force-rpath", "--set-rpath", places, str(path))
        if ".so" not in path.suffixes:
            _run("patchelf", "--set-interpreter", f"{runtime.LIBRARIES}/{loader}", str(path))


def _needed(path: pathlib.Path) -> list[str]:
    return _run("patchelf", "--print-needed", str(path)).split()


def _is_elf(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def _library(name: str, for_platform: str) -> pathlib.Path:
    found = _found_library(name, for_platform)
    if found is None:
        raise BuildError(f"this machine does not have {name}, which its JDK needs")
    return found


def _found_library(name: str, for_platform: str) -> pathlib.Path | None:
    triplet = _TRIPLETS[for_platform]
    for folder in (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib"):
        path = pathlib.Path(folder, name)
        if paths.exists(path):
            return path.resolve()
    return None


def _tools(made_of: Ingredients, base: pathlib.Path) -> None:
    """Bring a shell, and what lets a program outlive it; Docker, and whom a build is asked for."""
    folder = _below(base, runtime.TOOLS)
    folder.mkdir()
    _copy(made_of.busybox, folder / "busybox")
    (folder / "sh").symlink_to("busybox")
    if made_of.docker is not None:
        _copy(made_of.docker, folder / "docker")
        (folder / "id").symlink_to("busybox")
    (folder / "nohup").write_text(_NOHUP)
    (folder / "nohup").chmod(0o755)


def _copy(program: pathlib.Path, to: pathlib.Path) -> None:
    shutil.copyfile(program, to)
    to.chmod(0o755)


def _check_static(program: pathlib.Path, *, hint: str) -> None:
    """Raise BuildError for a program that does not run in every image."""
    try:
        with program.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise BuildError(f"{program}: cannot be read: {error.strerror}") from error
    if not head.startswith(_ELF) or b"/ld-" in head:
        raise BuildError(f"{program} is not static; hint: {hint}")


def _locale(base: pathlib.Path) -> None:
    found = next((path for path in map(pathlib.Path, _LOCALES) if paths.is_directory(path)), None)
    if found is None:
        raise BuildError(f"no locale C.UTF-8 in {_LOCALES[0]}; hint: apt-get install libc-bin")
    shutil.copytree(found, _below(base, runtime.LOCALES) / "C.utf8")


def _archive_classes(base: pathlib.Path, tell: Tell) -> str:
    """Have the new Java archive its classes and agent.jar's, and check that it takes them.

    Java orders what it writes by where it lies in memory. With one processor, one compiler
    thread, addresses that are not random and nothing of this machine's environment that is the
    same each time but for rare cases, so the first archive that comes twice is taken. Returns why
    another run would give another one; empty: it would not. Raises BuildError.
    """
    inside = (
        ["chroot", str(base)]
        if os.geteuid() == 0
        else ["unshare", "--map-root-user", f"--root={base}"]
    )
    told = (f"-XX:SharedArchiveFile={runtime.CLASSES}", *_DUMP, "-cp", runtime.JAR)
    dump = (runtime.JAVA, "-Xshare:dump", f"-XX:SharedClassListFile=/{_LIST}", *_ALIKE, *told)
    archived = _below(base, runtime.CLASSES)
    varies = _unsteady()
    seen: set[str] = set()
    for number in range(1 if varies else _DUMPS):
        tell(f"archiving classes, run {number + 1}{'' if varies else ', until two are alike'}")
        archived.unlink(missing_ok=True)
        _run(*_FIXED, *(() if varies else _steady()), *inside, *dump)
        found = tree.checksum(archived)
        if found in seen:
            break
        seen.add(found)
    else:
        varies = varies or "Java archived its classes differently each time"
    _run(*inside, runtime.JAVA, "-Xshare:on", *told, "-version", path="/usr/sbin:/sbin")
    return varies


def _steady() -> Sequence[str]:
    one = str(min(os.sched_getaffinity(0)))
    return ("setarch", "--addr-no-randomize", "taskset", "--cpu-list", one)


def _unsteady() -> str:
    """Return why addresses stay random on this machine: containers may not say otherwise."""
    try:
        _run(*_steady(), "true")
    except BuildError as error:
        return str(error)
    return ""


def _below(base: pathlib.Path, path: str) -> pathlib.Path:
    return base / path.lstrip("/")


def _run(*command: str, path: str = "") -> str:
    """Run a program to its end; return what it prints. Raises BuildError."""
    search = ":".join(part for part in (os.environ.get("PATH", ""), path) if part)
    program = shutil.which(command[0], path=search)
    if program is None:
        raise BuildError(f"no {command[0]} on this machine; hint: apt-get install {command[0]}")
    words: Sequence[str] = (program, *command[1:])
    try:
        ended = programs.ask(words, b"", limit=_SAID_MAX, within_s=_PROGRAM_S)
    except (OSError, TimeoutError, programs.TooMuch) as error:
        raise BuildError(f"{command[0]}: {text.clean(str(error)) or 'took too long'}") from error
    if ended.code:
        said = (ended.complained or ended.printed).decode("utf-8", "replace").strip()
        last = said.splitlines()[-1] if said else f"it ended with {ended.code}"
        raise BuildError(f"{command[0]}: {text.clean(last)}")
    return ended.printed.decode("utf-8", "replace")
