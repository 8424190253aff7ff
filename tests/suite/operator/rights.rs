//! What the operator may do, said a second time: no right comes into its role, or goes, without somebody having meant it.

use std::collections::BTreeMap;

use ipxe_bridge::operator::kind::Kind;

use super::*;

/// Of what it writes.
const ALL: &str = "create delete get list patch watch";

#[test]
fn the_operators_role_has_the_rights_of_this_table_and_no_others() {
    let mut wanted: BTreeMap<String, &str> = Kind::written().map(|kind| (kind.plural(), ALL)).collect();
    let others = [
        // They go with their bridge.
        ("clusterrolebindings.rbac.authorization.k8s.io", "create get list patch watch"),
        ("secrets", "create get list patch watch"),
        ("pods", "list watch"),
        ("events.events.k8s.io", "create patch"),
        ("ipxebridges.ipxe-bridge.io", "list watch"),
        ("ipxebridges/status.ipxe-bridge.io", "patch"),
        ("ipxebridges/finalizers.ipxe-bridge.io", "update"),
        ("routes/custom-host.route.openshift.io", "create update"),
        ("clusterroles.rbac.authorization.k8s.io ipxe-bridge-server", "bind"),
    ];
    wanted.extend(others.map(|(what, verbs)| (what.to_owned(), verbs)));

    let role: Value = serde_saphyr::from_str(include_str!("../../../config/rbac/operator.yaml")).unwrap();
    let words = |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap_or_default() };
    let mut granted = BTreeMap::new();
    for rule in role["rules"].as_array().unwrap() {
        let mut verbs = words(rule, "verbs");
        verbs.sort();
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                let mut what = resource;
                if !group.is_empty() {
                    what = format!("{what}.{group}");
                }
                for name in words(rule, "resourceNames") {
                    what = format!("{what} {name}");
                }
                assert_eq!(granted.insert(what.clone(), verbs.join(" ")), None, "{what} is there twice");
            }
        }
    }
    let wanted: BTreeMap<String, String> = wanted.into_iter().map(|(what, verbs)| (what, verbs.to_owned())).collect();
    assert_eq!(granted, wanted, "left: config/rbac/operator.yaml, right: this table");
}
