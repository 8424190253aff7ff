//! One pod from its start to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::network::Namespace;
use super::volumes::Volumes;
use super::{Shared, container};
use crate::support::process::Leashed;

const TICK: Duration = Duration::from_millis(250);

/// The container while its process is there.
struct Running {
    process: Leashed,
    since: Timestamp,
    started: bool,
    ready: bool,
    startup: Checks,
    readiness: Checks,
    liveness: Checks,
}

/// How often a probe failed in a row, and when it is due.
#[derive(Default)]
struct Checks {
    failures: i32,
    next: Option<Instant>,
}

struct Runner {
    shared: Arc<Shared>,
    api: Api<Pod>,
    pod: Pod,
    namespace: Arc<Namespace>,
    volumes: Volumes,
    http: reqwest::Client,
    running: Option<Running>,
    waiting: Value,
    last: Value,
    restarts: u32,
    next_start: Instant,
    told: Value,
}

/// Runs a pod until it is deleted.
pub async fn run(shared: Arc<Shared>, mut updates: watch::Receiver<Pod>) {
    let pod = updates.borrow_and_update().clone();
    let name = pod.name_any();
    let mut runner = Runner {
        api: Api::namespaced(shared.client.clone(), &pod.namespace().unwrap()),
        namespace: match pod.spec.as_ref().and_then(|spec| spec.host_network) {
            Some(true) => shared.network.own(),
            _ => Arc::new(shared.network.namespace()),
        },
        volumes: Volumes::new(
            shared.folder.path().join(format!("{name}.volumes")),
            shared.client.clone(),
            &pod,
            &shared.images,
        ),
        http: reqwest::Client::builder()
            .no_proxy()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(1))
            .pool_max_idle_per_host(0)
            .build()
            .unwrap(),
        running: None,
        waiting: json!({"reason": "ContainerCreating"}),
        last: json!({}),
        restarts: 0,
        next_start: Instant::now(),
        told: Value::Null,
        pod,
        shared,
    };
    loop {
        if runner.pod.metadata.deletion_timestamp.is_some() {
            return runner.end().await;
        }
        runner.step().await;
        runner.tell().await;
        match tokio::time::timeout(TICK, updates.changed()).await {
            Ok(Ok(())) => runner.pod = updates.borrow_and_update().clone(),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

impl Runner {
    fn container(&self) -> Container {
        self.pod.spec.as_ref().unwrap().containers[0].clone()
    }

    async fn step(&mut self) {
        let container = self.container();
        if let Err(why) = self.volumes.refresh().await
            && self.running.is_none()
        {
            self.waiting = json!({"reason": "ContainerCreating", "message": why});
            return;
        }
        if let Some(running) = &mut self.running {
            match running.process.ended() {
                None => return self.probe(&container).await,
                Some(status) => {
                    let log = self.shared.folder.path().join(format!("{}.log", self.pod.name_any()));
                    let log = std::fs::read_to_string(log).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(5).collect();
                    let message: String = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                    self.last = json!({"terminated": {
                        "exitCode": status.code().unwrap_or(137), "reason": "Error", "message": message,
                        "startedAt": running.since.to_string(), "finishedAt": Timestamp::now().to_string()}});
                    self.stopped();
                }
            }
        }
        let image = container.image.clone().unwrap_or_default();
        let Some(program) = self.shared.images.get(&image).cloned() else {
            self.waiting = json!({"reason": "ImagePullBackOff", "message": format!("Back-off pulling image {image:?}")});
            return;
        };
        if Instant::now() < self.next_start {
            return;
        }
        let folder = self.shared.folder.path();
        let process = container::start(
            &self.pod,
            &program,
            &self.namespace,
            &self.volumes,
            folder,
            self.shared.api_port,
        );
        self.shared.running.lock().unwrap().insert(self.pod.name_any(), process.id());
        self.running = Some(Running {
            process,
            since: Timestamp::now(),
            started: container.startup_probe.is_none(),
            ready: false,
            startup: Checks::default(),
            readiness: Checks::default(),
            liveness: Checks::default(),
        });
    }

    /// The process is gone and is started again after a pause.
    fn stopped(&mut self) {
        self.running = None;
        self.shared.running.lock().unwrap().remove(&self.pod.name_any());
        self.restarts += 1;
        let pause = Duration::from_secs(u64::from(self.restarts).min(5));
        self.next_start = Instant::now() + pause;
        self.waiting = json!({"reason": "CrashLoopBackOff", "message": format!("back-off {pause:?} restarting failed container")});
    }

    async fn probe(&mut self, container: &Container) {
        let Some(running) = &mut self.running else { return };
        let address = &self.namespace.address;
        if !running.started {
            match check(
                &self.http,
                container,
                address,
                container.startup_probe.as_ref(),
                &mut running.startup,
            )
            .await
            {
                Some(true) => running.started = true,
                Some(false) => return self.stopped(),
                None => {}
            }
            return;
        }
        let alive = check(
            &self.http,
            container,
            address,
            container.liveness_probe.as_ref(),
            &mut running.liveness,
        )
        .await;
        if alive == Some(false) {
            return self.stopped();
        }
        match &container.readiness_probe {
            None => running.ready = true,
            Some(probe) => {
                if let Some(ready) = check(&self.http, container, address, Some(probe), &mut running.readiness).await {
                    running.ready = ready;
                }
            }
        }
    }

    /// Patches the status if it is another.
    async fn tell(&mut self) {
        let container = self.container();
        let ready = self.running.as_ref().is_some_and(|running| running.ready);
        let state = match &self.running {
            Some(running) => json!({"running": {"startedAt": running.since.to_string()}}),
            None => json!({"waiting": self.waiting}),
        };
        let condition = |type_: &str, holds: bool| json!({"type": type_, "status": if holds { "True" } else { "False" }});
        let status = json!({
            "phase": if self.running.is_some() || self.restarts > 0 { "Running" } else { "Pending" },
            "podIP": self.namespace.address, "podIPs": [{"ip": self.namespace.address}],
            "conditions": [
                condition("PodScheduled", true), condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready)],
            "containerStatuses": [{
                "name": container.name, "image": container.image, "imageID": container.image, "ready": ready, "restartCount": self.restarts,
                "started": self.running.as_ref().is_some_and(|running| running.started), "state": state, "lastState": self.last}],
        });
        if status == self.told {
            return;
        }
        let patch = Patch::Merge(json!({"status": status}));
        if self
            .api
            .patch_status(&self.pod.name_any(), &PatchParams::default(), &patch)
            .await
            .is_ok()
        {
            self.told = status;
        }
    }

    /// `preStop`, SIGTERM, the grace period, the end.
    async fn end(mut self) {
        let container = self.container();
        let name = self.pod.name_any();
        if let Some(mut running) = self.running.take() {
            let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            let until = Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap());
            let hook = container
                .lifecycle
                .and_then(|lifecycle| lifecycle.pre_stop)
                .and_then(|hook| hook.sleep);
            if let Some(sleep) = hook {
                let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap());
                tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            }
            let pid = rustix::process::Pid::from_raw(i32::try_from(running.process.id()).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            while running.process.ended().is_none() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.shared.running.lock().unwrap().remove(&name);
        let parameters = DeleteParams::default().grace_period(0).preconditions(Preconditions {
            uid: self.pod.uid(),
            resource_version: None,
        });
        let _ = self.api.delete(&name, &parameters).await;
    }
}

/// What a probe says: fine, failed too often, or nothing new.
async fn check(
    http: &reqwest::Client,
    container: &Container,
    address: &str,
    probe: Option<&Probe>,
    checks: &mut Checks,
) -> Option<bool> {
    let probe = probe?;
    let now = Instant::now();
    if checks.next.is_some_and(|next| now < next) {
        return None;
    }
    checks.next = Some(now + Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10)).unwrap()));
    let url = url(container, address, probe.http_get.as_ref().unwrap());
    let good = http.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
    if good {
        checks.failures = 0;
        return Some(true);
    }
    checks.failures += 1;
    (checks.failures >= probe.failure_threshold.unwrap_or(3)).then_some(false)
}

fn url(container: &Container, address: &str, get: &HTTPGetAction) -> String {
    let port = match &get.port {
        IntOrString::Int(port) => *port,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            ports
                .clone()
                .find(|port| port.name.as_ref() == Some(name))
                .unwrap()
                .container_port
        }
    };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    format!("{scheme}://{address}:{port}{}", get.path.as_deref().unwrap_or("/"))
}
