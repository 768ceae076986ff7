//! `deploy/kubernetes/`.

use std::{collections::BTreeSet, fs, process::Command};

use cota::config::{Config, Secret};
use serde_json::{Value, json};

use crate::{
    files::{document, documents, objections, path, read},
    support::TempFolder,
};

const FOLDER: &str = "deploy/kubernetes";

/// Every manifest, with the name of its file.
fn manifests() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path(FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") && name != "kustomization.yaml" {
            all.extend(documents(&format!("{FOLDER}/{name}")).into_iter().map(|found| (name.clone(), found)));
        }
    }
    all
}

fn manifest(kind: &str) -> Value {
    manifests().into_iter().find(|(_, found)| found["kind"] == kind).unwrap().1
}

/// What Kubernetes, or the Prometheus operator, says against it.
fn against(manifest: &Value) -> Vec<String> {
    let kind = manifest["kind"].as_str().unwrap();
    if kind == "ServiceMonitor" {
        let schema = serde_json::from_str(&read("tests/data/schemas/servicemonitor-0.93.json")).unwrap();
        return objections(&schema, manifest);
    }
    let mut schema: Value = serde_json::from_str(&read("tests/data/schemas/kubernetes-1.37.json")).unwrap();
    assert!(schema["definitions"][kind].is_object(), "no schema for {kind}");
    schema["$ref"] = json!(format!("#/definitions/{kind}"));
    objections(&schema, manifest)
}

#[test]
fn kubernetes_takes_them() {
    let manifests = manifests();
    assert!(manifests.len() >= 11);
    for (name, manifest) in &manifests {
        assert_eq!(against(manifest), [""; 0], "{name}");
        let mut wrong = manifest.clone();
        wrong["sepc"] = json!({});
        assert!(!against(&wrong).is_empty(), "{name}: the schema finds a slip of the pen");
    }
    let mut wrong = manifest("Deployment");
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["prot"] = json!("http");
    assert!(!against(&wrong).is_empty(), "deep down, too");
}

/// Everything is applied, but for the template of the secret.
#[test]
fn the_kustomization_names_every_file() {
    let kustomization = document(&format!("{FOLDER}/kustomization.yaml"));
    let named: BTreeSet<&str> =
        kustomization["resources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let manifests = manifests();
    let mut there: BTreeSet<&str> = manifests.iter().map(|(name, _)| name.as_str()).collect();
    assert!(there.remove("secret.example.yaml"));
    assert_eq!(named, there);
}

/// All that points at the pods points at what the pods are labelled with, and every named port is one of theirs.
#[test]
fn selectors_and_ports_meet_the_pods() {
    let deployment = manifest("Deployment");
    let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().unwrap().clone();
    let matches = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    assert!(matches(&deployment["spec"]["selector"]["matchLabels"]));
    assert!(matches(&manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]));
    let policy = manifest("NetworkPolicy");
    assert!(matches(&policy["spec"]["podSelector"]["matchLabels"]));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let ports: BTreeSet<&str> =
        container["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert!(ports.contains(container[probe]["httpGet"]["port"].as_str().unwrap()), "{probe}");
    }
    for rule in policy["spec"]["ingress"].as_array().unwrap() {
        assert!(ports.contains(rule["ports"][0]["port"].as_str().unwrap()));
    }
    let mut monitored = false;
    for (_, service) in manifests().iter().filter(|(_, found)| found["kind"] == "Service") {
        assert!(matches(&service["spec"]["selector"]));
        assert!(ports.contains(service["spec"]["ports"][0]["targetPort"].as_str().unwrap()));
        let wanted = &manifest("ServiceMonitor")["spec"];
        let own = service["metadata"]["labels"].as_object();
        monitored |= own.is_some_and(|own| {
            let wanted = wanted["selector"]["matchLabels"].as_object().unwrap();
            wanted.iter().all(|(key, value)| own.get(key) == Some(value))
        }) && wanted["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"];
    }
    assert!(monitored, "the ServiceMonitor finds a service");
    assert_eq!(
        manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"],
        deployment["metadata"]["name"]
    );
}

/// The service takes the configuration, listens on the ports of the container, and drains in the time it has.
#[test]
fn cota_takes_its_configuration() {
    let folder = TempFolder::new();
    let file = folder.join("cota.toml");
    fs::write(&file, manifest("ConfigMap")["data"]["cota.toml"].as_str().unwrap()).unwrap();
    let mut config = Config::read(Some(&file)).unwrap();
    config.auth.hs256_secret = Secret::new("a secret of more than thirty-two bytes");
    let active = std::mem::take(&mut config.keys.active);
    config.check().unwrap();
    assert!(manifest("Secret")["stringData"]["key-ring"].as_str().unwrap().contains(&format!("{active:?}")));

    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for (port, listen) in [(0, config.http.listen), (1, config.http.metrics_listen)] {
        assert_eq!(container["ports"][port]["containerPort"], listen.port());
    }
    let pause: u64 =
        container["lifecycle"]["preStop"]["exec"]["command"][1].as_str().unwrap().parse().unwrap();
    let drains = (config.http.drain_timeout_ms + config.flusher.drain_timeout_ms) / 1000;
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= pause + drains + 5);

    // The names that the pods get their secrets by are keys of the configuration, and of the template.
    let template = manifest("Secret");
    let keys = template["stringData"].as_object().unwrap();
    for container in [container, &pod["initContainers"][0]] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_cota"));
        check.args(["check-config", "--config"]).arg(&file).env_clear();
        for variable in container["env"].as_array().unwrap() {
            let from = variable["valueFrom"]["secretKeyRef"]["key"].as_str().unwrap();
            assert!(keys.contains_key(from), "{from}");
            let value = match from {
                "hs256-secret" => "a secret of more than thirty-two bytes",
                "key-ring" => r#"[{id="first",key="MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}]"#,
                "index-key" => "OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg=",
                _ => "redis://redis",
            };
            check.env(variable["name"].as_str().unwrap(), value);
        }
        let output = check.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What the namespace enforces (`restricted`), and no key to Kubernetes.
#[test]
fn pods_may_do_nothing_that_they_need_not() {
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(manifest("ServiceAccount")["automountServiceAccountToken"], false);
    for container in [&pod["containers"][0], &pod["initContainers"][0]] {
        let confined = &container["securityContext"];
        assert_eq!(confined["allowPrivilegeEscalation"], false);
        assert_eq!(confined["readOnlyRootFilesystem"], true);
        assert_eq!(confined["capabilities"]["drop"], json!(["ALL"]));
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
}
