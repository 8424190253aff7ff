//! How far a Deployment is, and why a pod does not start. Pure.

use serde_json::Value;

use crate::operator::reason::{Finding, Reason};

/// How far a Deployment is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Pods that are wanted.
    pub wanted: i32,
    /// Pods that are there.
    pub replicas: i32,
    /// Pods that answer machines.
    pub ready: i32,
    /// What is on its way.
    pub moving: Option<String>,
    /// What did not arrive in time.
    pub stuck: Option<String>,
}

impl Rollout {
    /// Reads a Deployment; before there is one, one is on its way if it can be.
    pub fn of(deployment: Option<&Value>, can_run: bool) -> Self {
        let Some(deployment) = deployment else {
            return Self {
                moving: can_run.then(|| "the pods are being created".to_owned()),
                ..Self::default()
            };
        };
        let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let wanted = spec["replicas"].as_i64().map_or(1, |_| number(&spec["replicas"]));
        let (replicas, ready) = (number(&status["replicas"]), number(&status["readyReplicas"]));
        let updated = number(&status["updatedReplicas"]);
        let is_seen = status["observedGeneration"].as_i64() >= deployment["metadata"]["generation"].as_i64();
        let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let stuck = conditions
            .iter()
            .find(|condition| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded")
            .filter(|_| is_seen)
            .map(|_| {
                format!("new pods did not become ready in time: {updated} of {wanted} are new, {ready} of {replicas} are ready")
            });
        let is_moving = !is_seen || updated < wanted || replicas > updated || ready < wanted;
        let moving = (is_moving && stuck.is_none()).then(|| match is_seen {
            true => format!("{updated} of {wanted} pods are new, {ready} of {replicas} are ready"),
            false => "the pods are about to change".to_owned(),
        });
        Self {
            wanted,
            replicas,
            ready,
            moving,
            stuck,
        }
    }

    /// Whether machines are answered, and how many pods do.
    pub fn availability(&self) -> (bool, Finding) {
        let (ready, wanted) = (self.ready, self.wanted);
        match (ready, wanted) {
            (1.., _) => (
                true,
                Finding::new(Reason::PodsReady, format!("{ready} of {wanted} pods answer machines")),
            ),
            (_, 0) if self.moving.is_none() && self.replicas == 0 => (
                false,
                Finding::new(Reason::ScaledToZero, "no pods are wanted: set spec.replicas"),
            ),
            _ => (false, Finding::new(Reason::NoReadyPods, "no pod answers machines")),
        }
    }
}

/// What a container waits for while all is well.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a pod does not start, if it says so.
pub fn failure(pod: &Value) -> Option<Finding> {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let status = &pod["status"];
    let unschedulable = status["conditions"].as_array().into_iter().flatten().find_map(|condition| {
        let refused = condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable";
        refused.then(|| condition["message"].as_str().unwrap_or("no node takes it").to_owned())
    });
    let containers = status["containerStatuses"].as_array().into_iter().flatten();
    let cause = unschedulable.or_else(|| containers.filter_map(container_failure).next())?;
    Some(Finding::new(Reason::PodsFailing, format!("pod {name} cannot start: {cause}")))
}

/// Why the cluster lets a Deployment make no pod at all.
pub fn refused(deployment: &Value) -> Option<Finding> {
    let conditions = deployment["status"]["conditions"].as_array()?;
    let failed = conditions
        .iter()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")?;
    let why = failed["message"].as_str().unwrap_or("no reason is given");
    Some(Finding::new(
        Reason::NetbootRefused,
        format!(
            "the pod on the boot network needs the node's network and was refused: {why}. Label the namespace \
             pod-security.kubernetes.io/enforce=privileged; on OpenShift apply deploy/openshift/netboot-scc.yaml"
        ),
    ))
}

fn container_failure(container: &Value) -> Option<String> {
    let state = &container["state"];
    let last_words = |ended: &Value| {
        let text = ended["message"].as_str().unwrap_or_default();
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    };
    let waiting = state["waiting"]["reason"]
        .as_str()
        .filter(|reason| !STARTING.contains(reason));
    if let Some(reason) = waiting {
        // What kubelet says of a crash is how long it waits, and that changes every time.
        let detail = match reason {
            "CrashLoopBackOff" => last_words(&container["lastState"]["terminated"]),
            _ => state["waiting"]["message"].as_str().map(str::to_owned),
        };
        return Some(detail.map_or_else(|| reason.to_owned(), |detail| format!("{reason}: {detail}")));
    }
    let ended = &state["terminated"];
    let code = ended["exitCode"].as_i64().filter(|code| *code != 0)?;
    Some(last_words(ended).unwrap_or_else(|| format!("it ended with exit code {code}")))
}
