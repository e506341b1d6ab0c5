"""From a pod template of the kubernetes plugin to pod YAML.

Pure. The plugin lays its fields over the template's `yaml`, and so does this. Refuses to know what
of a pod becomes a common setting: ``kubernetes`` takes it from the container of the agent.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, field

from broker.config import tree
from broker.importing import fields as reading
from broker.importing import hiding, jcasc, target
from broker.importing.fields import PlainSection
from broker.importing.target import Target

AGENT = "jnlp"
_WORKSPACE = "workspace"
_OURS = ("name", "generateName", "namespace", "ownerReferences", "finalizers")
_DEFAULT_WORK = "/home/jenkins/agent"
_SECRET_OF_AGENT = re.compile(r"\$\{computer\.jnlpmac\}")
_NAME_OF_AGENT = re.compile(r"\$\{computer\.name\}")
_AMOUNTS = {"cpu": "Cpu", "memory": "Memory", "ephemeral-storage": "EphemeralStorage"}
_CONTAINER = {
    "shell": "the shell of `sh` steps in this container; `in-container NAME sh -c ...` names one",
}

Body = dict[str, Any]


@define
class Pod:
    """A pod that is being made."""

    fields: PlainSection
    into: Target
    name: str
    called: str = AGENT  # the container that the agent runs in
    injects: bool = False  # an agent is put into it, in place of what it is started with
    agent: Body = field(factory=dict)
    others: list[Body] = field(factory=list)
    spec: Body = field(factory=dict)
    metadata: Body = field(factory=dict)
    work: str = ""  # the agent's directory, where it is not the usual one
    sub_path: str = ""  # of the shared directory in a volume that all pods have

    def build(self) -> None:
        """Read all that says something of the pod."""
        volumes, mounts = self._volumes()
        variables = list(self._variables(self.fields))
        containers = [self._container(one) for one in self.fields.entries("containers")]
        alone = self._old_container()
        if alone is not None and not any(one.get("name") == AGENT for one in containers):
            containers.insert(0, alone)
        if not any(one.get("name") == self.called for one in containers):
            containers.insert(0, {"name": self.called})
        for one in containers:
            _add(one, "env", variables, "name")
            _add(one, "volumeMounts", mounts, "mountPath")
        workspace = self._workspace()
        if workspace:
            volumes.append({"name": _WORKSPACE, **workspace})
        self._several(volumes)
        told: Body = {"containers": containers}
        if volumes:
            told["volumes"] = volumes
        told.update(self._settings())
        annotations = {
            one.raw("key"): one.raw("value") for one in self.fields.entries("annotations")
        }
        annotations.pop("", None)
        below = self._yaml()
        pod = merged(below, {"spec": told, "metadata": {"annotations": annotations}})
        self.metadata, self.spec = pod["metadata"], pod["spec"]
        for one in self.spec.pop("containers", []):
            if one.get("name") == self.called:
                self.agent = one
            else:
                self.others.append(one)
        if self.injects:
            self._without_its_own()

    def _without_its_own(self) -> None:
        """Leave out what the plugin leaves out of a container that it puts an agent into."""
        for key in ("command", "args", "workingDir"):
            if self.agent.pop(key, None):
                self.fields.note(
                    f"{key} of the container {self.called}: not used there, where the agent is "
                    "put into it, nor here"
                )

    def finished(self, labels: Mapping[str, str]) -> Body:
        """Return what is left of the pod beside the common settings."""
        work = self.work or _DEFAULT_WORK
        if self.sub_path:
            mount = {"name": _WORKSPACE, "mountPath": work, "subPath": self.sub_path}
            for one in (self.agent, *self.others):
                _add(one, "volumeMounts", [mount], "mountPath")
        for one in self.others:
            directory = one.get("workingDir")
            if directory == work:
                del one["workingDir"]
            elif directory:
                self.fields.note(
                    f"the container {one.get('name')}: workingDir {directory}: the plugin mounted "
                    f"the workspace there; here it is at {work} in all containers"
                )
        metadata = {key: value for key, value in self.metadata.items() if value}
        if labels:
            metadata["labels"] = {**metadata.get("labels", {}), **labels}
        containers = [one for one in (self.agent, *self.others) if len(_kept(one)) > 1]
        spec = {key: value for key, value in self.spec.items() if value not in (None, [], {})}
        if containers:
            spec = {"containers": [_kept(one) for one in containers], **spec}
        body = {"metadata": metadata, "spec": spec}
        if self.others:
            self.fields.note(
                "steps in side containers, container('NAME') { } in a pipeline, need the plugin; "
                "here a step calls `in-container NAME COMMAND` (in_container of the backend)",
                loud=True,
            )
        return {key: value for key, value in body.items() if value}

    # --- containers ---

    def _container(self, one: PlainSection) -> Body:
        name = one.raw("name") or AGENT
        told = PlainSection(one.data, one.out, one.has_variables, f"container {name}: ", one.taken)
        body: Body = {"name": name}
        image = told.text("image") if name == self.called else told.raw("image")
        if image:
            body["image"] = image
        body.update(self._common(told))
        directory = told.raw("workingDir")
        if directory and not (directory == _DEFAULT_WORK and name == self.called):
            body["workingDir"] = directory.rstrip("/") or "/"
        ports = list(self._ports(told))
        if ports:
            body["ports"] = ports
        probe = self._probe(told)
        if probe:
            body["livenessProbe"] = probe
        variables = list(self._variables(told))
        if variables:
            body["env"] = variables
        told.rest(_CONTAINER)
        return body

    def _old_container(self) -> Body | None:
        """Return the container that old templates had in themselves."""
        f = self.fields
        f.skip("resourceRequestCpu", "resourceLimitCpu", "resourceRequestMemory")
        if not f.has("image", "command", "args", "remoteFs", "privileged", "alwaysPullImage"):
            return None
        body: Body = {"name": AGENT, **self._common(f)}
        image, work = f.text("image"), f.raw("remoteFs")
        if image:
            body["image"] = image
        if work and work != _DEFAULT_WORK:
            body["workingDir"] = work
        return body

    def _common(self, one: PlainSection) -> Body:
        body: Body = {}
        for key in ("command", "args"):
            words = self._command(one, key)
            if words:
                body[key] = words
        if one.truth("ttyEnabled"):
            body["tty"] = True
        if one.truth("alwaysPullImage"):
            body["imagePullPolicy"] = "Always"
        context = self._context(one)
        if context:
            body["securityContext"] = context
        resources = {
            part: amounts
            for part, word in (("requests", "Request"), ("limits", "Limit"))
            if (amounts := self._amounts(one, word))
        }
        if resources:
            body["resources"] = resources
        return body

    def _context(self, one: PlainSection) -> Body:
        context: Body = {}
        if one.truth("privileged"):
            context["privileged"] = True
            one.note("privileged: every build is root on its node", loud=True)
        if one is not self.fields:  # the pod's own user is a setting
            for key in ("runAsUser", "runAsGroup"):
                number = one.whole(key)
                if number is not None:
                    context[key] = number
        return context

    def _amounts(self, one: PlainSection, word: str) -> Body:
        amounts = {
            kind: one.raw(f"resource{word}{name}").strip() for kind, name in _AMOUNTS.items()
        }
        return {kind: text for kind, text in amounts.items() if text}

    def _command(self, one: PlainSection, key: str) -> list[str]:
        """Return a command as a list; the agent's secret and name as they are here."""
        one.taken.add(key)
        value = one.data.get(key)
        if isinstance(value, list):
            words = [word for word in value if isinstance(word, str)]
            words = [hiding.cleaned(word) for word in words]
        else:
            text = value if isinstance(value, str) else ""
            plain = text.replace("^${", "${")
            known = _NAME_OF_AGENT.sub("", _SECRET_OF_AGENT.sub("", plain))
            if one.has_variables:
                one.say_variables(key, known)
            if not known.strip():
                return []  # what the entry point is given anyway
            plain = _SECRET_OF_AGENT.sub("$(JENKINS_SECRET)", plain)
            plain = _NAME_OF_AGENT.sub("$(JENKINS_AGENT_NAME)", plain)
            words = reading.split(hiding.cleaned(plain))
        return words

    def _ports(self, one: PlainSection) -> Iterator[Body]:
        for entry in one.entries("ports"):
            port = entry.whole("containerPort")
            if port is None:
                continue
            body: Body = {"containerPort": port}
            if entry.raw("name"):
                body["name"] = entry.raw("name")
            host = entry.whole("hostPort")
            if host:
                body["hostPort"] = host
            yield body

    def _probe(self, one: PlainSection) -> Body | None:
        probe = one.section("livenessProbe")
        words = probe.words("execArgs")
        numbers = {
            key: probe.whole(key)
            for key in (
                "initialDelaySeconds",
                "timeoutSeconds",
                "failureThreshold",
                "periodSeconds",
                "successThreshold",
            )
        }
        if not words:
            return None  # the plugin makes none without a command
        return {"exec": {"command": words}, **{k: v for k, v in numbers.items() if v}}

    def _variables(self, one: PlainSection) -> Iterator[Body]:
        for kind, entry in one.kinds("envVars"):
            if entry.raw("key") == "" and kind in entry.data:
                continue
            key = entry.raw("key")
            if kind == "secretEnvVar" or "secretName" in entry.data:
                source: Body = {"name": entry.raw("secretName"), "key": entry.raw("secretKey")}
                if entry.truth("optional"):
                    source["optional"] = True
                yield {"name": key, "valueFrom": {"secretKeyRef": source}}
                continue
            found: dict[str, str] = {}
            self.into.variable(found, one, key, entry.raw("value"), f"template {self.name}")
            for name, value in found.items():
                yield {"name": name, "value": value}

    # --- volumes ---

    def _volumes(self) -> tuple[list[Body], list[Body]]:
        volumes: list[Body] = []
        mounts: list[Body] = []
        for number, (kind, one) in enumerate(self.fields.kinds("volumes")):
            path = one.raw("mountPath")
            source = self._source(kind, one)
            if source is None or not path:
                self.fields.note(f"volumes[{number}]: {kind or 'without a kind'}: not imported")
                continue
            mount: Body = {"name": f"volume-{number}", "mountPath": path}
            inner = one.raw("subPath")
            if inner:
                mount["subPath"] = inner
            if one.truth("readOnly"):
                mount["readOnly"] = True
            volumes.append({"name": f"volume-{number}", **source})
            mounts.append(mount)
            one.rest({"id": "the plugin's own number"})
        return volumes, mounts

    def _source(self, kind: str, one: PlainSection) -> Body | None:
        """Return what a volume is a view of; None for a kind that nobody knows."""
        plain = kind.replace("Workspace", "").removesuffix("Volume").lower()
        if plain == "hostpath":
            path = one.raw("hostPath")
            self.fields.note(f"hostPath {path}: builds reach their node's files")
        maker = _SOURCES.get(plain)
        return None if maker is None else maker(one)

    def _workspace(self) -> Body | None:
        """Return what the shared directory is, unless it is an empty one."""
        kind, one = self.fields.kind("workspaceVolume")
        if not kind:
            return None
        source = self._source(kind, one)
        if source is None:
            self.fields.note(f"workspaceVolume: {kind}: not imported: an empty directory here")
            return None
        one.skip("readOnly")
        if source == {"emptyDir": {}}:
            return None
        if "emptyDir" not in source and "ephemeral" not in source:
            self.sub_path = "{name}"
            self.fields.note(
                f"workspaceVolume {kind}: all pods shared one place, and builds found each "
                "other's files. Here each agent has a folder of its own in it ({name}), which "
                "nobody removes: an `ephemeral` volume would go with its pod",
                loud=True,
            )
        return source

    def _several(self, volumes: list[Body]) -> None:
        for volume in volumes:
            claim = volume.get("persistentVolumeClaim")
            if claim and volume["name"] != _WORKSPACE:
                self.fields.note(
                    f"persistentVolumeClaim {claim['claimName']}: all agents share it, as there"
                )

    # --- the rest of the pod ---

    def _settings(self) -> Body:
        f = self.fields
        spec: Body = {}
        if f.truth("hostNetwork"):
            spec["hostNetwork"] = True
        groups = [
            int(g) for g in re.split(r"[\s,]+", f.raw("supplementalGroups")) if g.isdecimal()
        ]
        if groups:
            spec["securityContext"] = {"supplementalGroups": groups}
        if f.raw("schedulerName"):
            spec["schedulerName"] = f.raw("schedulerName")
        grace = f.whole("terminationGracePeriodSeconds")
        if grace is not None:
            spec["terminationGracePeriodSeconds"] = grace
        told = target.node_properties(self.into, f, f"template {self.name}")
        if told:
            target.environment(f.out, told)
        return spec

    def _yaml(self) -> Body:
        """Return the pod that is written in `yaml`."""
        f = self.fields
        texts = f.plain_list("yamls") if isinstance(f.data.get("yamls"), list) else []
        f.skip("yaml", "yamls")
        yaml = f.data.get("yaml")
        if not texts and yaml:
            texts = [yaml]
        pod: Body = {}
        for text in texts:
            if isinstance(text, Mapping):  # written out, where a text belongs
                pod = merged(pod, hiding.cleaned_tree(dict(text)))
                continue
            for part in re.split(r"(?m)^---(?=\s|$)", str(text)):
                pod = merged(pod, self._document(part))
        return self._checked(pod)

    def _checked(self, pod: Body) -> Body:
        """Return a pod without what is the broker's, and what is of the wrong kind."""
        f = self.fields
        metadata, spec = _section(pod.get("metadata")), _section(pod.get("spec"))
        odd = sorted(set(pod) - {"apiVersion", "kind", "metadata", "spec", "status"})
        if odd:
            f.note(f"yaml: {', '.join(map(str, odd))[:80]}: not imported: not of a pod", loud=True)
        gone = [key for key in _OURS if metadata.pop(key, None) is not None]
        if gone:
            f.note(f"yaml: metadata.{', metadata.'.join(gone)} is the broker's; left out")
        if spec.get("restartPolicy", "Never") != "Never":
            f.note(f"yaml: restartPolicy {spec['restartPolicy']}: an agent is never restarted")
        spec.pop("restartPolicy", None)
        for key in ("containers", "initContainers", "volumes"):
            entries = spec.pop(key, None)
            if isinstance(entries, list):
                spec[key] = [entry for entry in entries if isinstance(entry, dict)]
                for number, entry in enumerate(spec[key]):
                    entry.setdefault("name", f"{key.lower()}-{number}")
            elif entries is not None:
                f.note(f"yaml: spec.{key}: not imported: a list belongs there", loud=True)
        return {"metadata": metadata, "spec": spec}

    def _document(self, text: str) -> Body:
        f = self.fields
        if not text.strip():
            return {}
        if f.has_variables:
            f.say_variables("yaml", text)
            text = text.replace("^${", "${")
        told = tree.parse(text)
        for fault in told.faults[:5]:
            f.note(f"yaml: line {fault.line}: {hiding.cleaned(fault.text)}", loud=True)
        if not isinstance(told.data, dict):
            if text.strip() and told.whole:
                f.note("yaml: not imported: it is not a pod", loud=True)
            return {}
        plain = jcasc.plain(told)
        clean: Body = hiding.cleaned_tree(plain)
        if clean != plain:
            f.note(
                f"yaml: it held what looks like a secret; {hiding.REMOVED} stands there: use "
                "valueFrom: {secretKeyRef: {name: ..., key: ...}}",
                loud=True,
            )
            self.into.need(f"a Secret of Kubernetes for the values of template {self.name}")
        return clean


def _empty(one: PlainSection) -> Body:
    body = {"medium": "Memory"} if one.truth("memory") else {}
    size = one.raw("sizeLimit")
    return {"emptyDir": {**body, "sizeLimit": size} if size else body}


def _secret(one: PlainSection) -> Body:
    body = _optional({"secretName": one.raw("secretName")}, one)
    mode = one.raw("defaultMode")
    if re.fullmatch(r"0?[0-7]{3,4}", mode):
        body["defaultMode"] = int(mode, 8)
    return {"secret": body}


def _claimed(one: PlainSection) -> Body:
    claim: Body = {
        "accessModes": [one.raw("accessModes") or "ReadWriteOnce"],
        "resources": {"requests": {"storage": one.raw("requestsSize") or "10Gi"}},
    }
    if one.raw("storageClassName"):
        claim["storageClassName"] = one.raw("storageClassName")
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _optional(body: Body, one: PlainSection) -> Body:
    if one.truth("optional"):
        body["optional"] = True
    return body


_SOURCES: Mapping[str, Callable[[PlainSection], Body]] = {
    "configmap": lambda one: {"configMap": _optional({"name": one.raw("configMapName")}, one)},
    "dynamicpvc": _claimed,
    "emptydir": _empty,
    "genericephemeral": _claimed,
    "hostpath": lambda one: {"hostPath": {"path": one.raw("hostPath")}},
    "nfs": lambda one: {
        "nfs": {"server": one.raw("serverAddress"), "path": one.raw("serverPath")}
    },
    "persistentvolumeclaim": lambda one: {
        "persistentVolumeClaim": {"claimName": one.raw("claimName")}
    },
    "secret": _secret,
}
"""What makes the source of a volume, by the plugin's word for its kind."""


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Body:
    """Lay one pod over another: what has a name is matched by it, mounts by their path."""
    both: Body = dict(under)
    for key, value in over.items():
        below = both.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            both[key] = merged(below, value)
        elif isinstance(below, list) and isinstance(value, list) and _entries(value):
            entry: Body = {key: [dict(one) for one in below if isinstance(one, Mapping)]}
            _add(entry, key, value, "mountPath" if key == "volumeMounts" else "name", over=True)
            both[key] = entry[key]
        elif value not in (None, [], {}):
            both[key] = value
        else:
            both.setdefault(key, value)
    return both


def _entries(value: list[Any]) -> bool:
    return all(isinstance(one, Mapping) and ("name" in one or "mountPath" in one) for one in value)


def _add(body: Body, key: str, told: list[Any], name: str, *, over: bool = False) -> None:
    """Add entries to a list; of those that are there already the list's own counts."""
    if not told:
        return
    have: list[Body] = list(body.get(key) or [])
    places = {_called(entry, name): number for number, entry in enumerate(have)}
    for entry in told:
        place = places.get(_called(entry, name))
        if place is None:
            have.append(dict(entry))
        elif over:
            have[place] = merged(have[place], entry)
    body[key] = have


def _called(entry: Mapping[str, Any], name: str) -> str:
    return str(entry.get(name)).rstrip("/")


def _section(value: Any) -> Body:
    return dict(value) if isinstance(value, Mapping) else {}


def _kept(container: Body) -> Body:
    return {key: value for key, value in container.items() if value not in (None, [], {}, "")}
