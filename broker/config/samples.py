"""Configurations to start from, one for each kind of backend that ``init`` knows.

Each loads as it is, but for the token's file or variable. Refuses to know the settings' classes:
the tests hold the two together.
"""

_HEAD = """\
# Jenkins Agent Broker. Every setting: docs/configuration.md; check with: agent-broker check-config
owner: broker1            # unique on the controller and the backends; agents are named after it

controller:
  url: http://localhost:8080/
  # Overall/Read, Job/Read, Agent/Create, Connect, Disconnect, Delete and Configure are enough.
  user: agent-broker
  token: env:JENKINS_TOKEN          # or file:PATH; never the token itself
  # agent_url: https://jenkins.example.com/   # if agents reach it under another address

state_dir: agent-broker-state       # keep it over restarts
listen: 127.0.0.1:8087              # status page and metrics; off: none
"""

_BACKENDS = {
    "process": """
backends:
  local:
    kind: process                   # agents as processes of this machine
    cap: 10                         # agents on it; default: 20, at most 4 a processor
""",
    "docker": """
backends:
  engine:
    kind: docker                    # agents as containers; docs/backends/docker.md
    cap: 10                         # agents on it; default: 50
    hosts:                          # in order; one that fails or is full is passed over
      - url: unix:///var/run/docker.sock
      # - {url: tcp://docker-2.example.com:2376, tls: true, ca_file: /etc/docker/ca.pem,
      #    cert_file: /etc/docker/cert.pem, key_file: /etc/docker/key.pem}
    # registries:
    #   registry.example.com: {user: ci, password_file: /run/secrets/registry}
""",
    "swarm": """
backends:
  swarm:
    kind: swarm                     # agents as services of a swarm; docs/backends/swarm.md
    cap: 10                         # agents on it; default: 50
    managers:                       # of one swarm; one that fails is passed over
      - url: unix:///var/run/docker.sock
      # - {url: tcp://manager-2.example.com:2376, tls: true, ca_file: /etc/docker/ca.pem,
      #    cert_file: /etc/docker/cert.pem, key_file: /etc/docker/key.pem}
    # registries:
    #   registry.example.com: {user: ci, password_file: /run/secrets/registry}
""",
    "kubernetes": """
backends:
  cluster:
    kind: kubernetes                # agents as pods; rights it needs: docs/backends/kubernetes.md
    cap: 10                         # agents on it; default: 50
    namespace: jenkins-agents       # one for agents alone makes quota and rights simple
    # kubeconfig: /home/me/.kube/config   # default: the pod's own service account
""",
    "mesos": """
backends:
  cluster:
    kind: mesos                     # agents as tasks; docs/backends/mesos.md
    cap: 10                         # agents on it; default: 50
    master: http://mesos-1.example.com:5050   # or zk://zk1:2181,zk2:2181,zk3:2181/mesos
    # role: builds                  # a role per controller, with a quota, keeps teams apart
    # principal: agent-broker
    # secret_file: /etc/agent-broker/mesos-secret
    handover:                       # agents' hosts fetch the agents' secrets here, each once
      listen: 0.0.0.0:8443
      url: http://broker.example.com:8443     # https:// with cert_file and key_file is better
""",
}
KINDS = tuple(_BACKENDS)
"""What ``sample`` takes."""

_DEFAULTS = """
defaults:                           # every template starts from these
  retention:
    idle: 10m
"""
_IMAGE = """\
  image: jenkins/inbound-agent:latest-jdk21
  # inject: true                    # an image without Java; first: agent-broker runtime build
  resources: {memory: 2Gi, cpu_shares: 1}
"""
_TEMPLATES = """
templates:
  linux:
    labels: linux shell
    warm:
      min_idle: 1                   # one agent waits for whoever comes next
    # command: [my-agent]           # own program instead of java -jar agent.jar

  # single-use:
  #   labels: [release]
  #   retention: {once: true}
  #   cap: 3
"""


def sample(kind: str) -> str:
    """Return a configuration with comments for a kind of ``KINDS``."""
    image = "" if kind == "process" else _IMAGE
    return f"{_HEAD}{_BACKENDS[kind]}{_DEFAULTS}{image}{_TEMPLATES}"
