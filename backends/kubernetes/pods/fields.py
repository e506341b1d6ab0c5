"""What kind of value the fields of a pod take.

Pure. A field's name tells its kind wherever in a pod it stands: the official package's models say
so, and a test asks them. Where a name means two things, and where both a text and a number are
taken (quantities, ports of probes), nothing is said; fields of tomorrow go through.
"""

from backends.kit import misfits

KINDS = misfits.Kinds(
    texts=(
        "action apiVersion audience claimName conditionType containerName devicePath "
        "dnsPolicy driver effect fieldPath fsGroupChangePolicy fsType group hostIP hostname "
        "image imagePullPolicy ip key kind level localhostProfile medium mountPath "
        "mountPropagation name namespace nodeAffinityPolicy nodeName nodeTaintsPolicy "
        "operator path preemptionPolicy prefix priorityClassName procMount protocol "
        "pullPolicy recursiveReadOnly reference resource resourceClaimName "
        "resourceClaimTemplateName restartPolicy role runAsUserName runtimeClassName "
        "schedulerName scheme secretName server service serviceAccount serviceAccountName "
        "signerName stopSignal storageClassName subPath subPathExpr subdomain "
        "supplementalGroupsPolicy terminationMessagePath terminationMessagePolicy topologyKey "
        "type value volumeMode volumeName whenUnsatisfiable workingDir"
    ),
    lists=(
        "accessModes add args command drop hostnames matchLabelKeys mismatchLabelKeys "
        "nameservers namespaces searches"
    ),
    sections="annotations labels matchLabels nodeSelector volumeAttributes",
    numbers=(
        "activeDeadlineSeconds containerPort defaultMode expirationSeconds failureThreshold "
        "fsGroup hostPort initialDelaySeconds maxSkew minDomains partition periodSeconds "
        "priority runAsGroup runAsUser seconds successThreshold terminationGracePeriodSeconds "
        "timeoutSeconds tolerationSeconds weight"
    ),
    truths=(
        "allowPrivilegeEscalation automountServiceAccountToken enableServiceLinks hostIPC "
        "hostNetwork hostPID hostUsers optional privileged readOnly readOnlyRootFilesystem "
        "runAsNonRoot setHostnameAsFQDN shareProcessNamespace stdin stdinOnce tty"
    ),
)
