//! ConfigMaps that others fill.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::metadata;
use crate::operator::name;
use crate::operator::plan::Plan;

/// OpenShift's network operator fills ConfigMaps with this label ("Configuring a custom PKI").
const CLUSTER_CA_LABEL: &str = "config.openshift.io/inject-trusted-cabundle";
/// OpenShift's service CA operator fills ConfigMaps with this annotation.
const SERVICE_CA_ANNOTATION: &str = "service.beta.openshift.io/inject-cabundle";

/// Those for which OpenShift is asked for certificates. They have no `data`: that belongs to whoever fills it in.
pub fn config_maps(plan: &Plan) -> Vec<ConfigMap> {
    let upstream = &plan.spec.upstream;
    let empty = |metadata| ConfigMap {
        metadata,
        ..ConfigMap::default()
    };
    let cluster = upstream.cluster_ca_bundle.is_on().then(|| {
        let mut meta = metadata(plan, name::cluster_ca(&plan.bridge));
        meta.labels
            .get_or_insert_default()
            .insert(CLUSTER_CA_LABEL.to_owned(), "true".to_owned());
        empty(meta)
    });
    let service = upstream.service_ca_bundle.is_on().then(|| {
        empty(ObjectMeta {
            annotations: Some([(SERVICE_CA_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..metadata(plan, name::service_ca(&plan.bridge))
        })
    });
    cluster.into_iter().chain(service).collect()
}
