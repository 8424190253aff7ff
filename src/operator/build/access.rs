//! Who the pods are, and what they may read.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::metadata;
use crate::operator::name;
use crate::operator::plan::{Plan, object_name};

/// The pods' account.
pub fn service_account(plan: &Plan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan, object_name(plan)),
        ..ServiceAccount::default()
    }
}

/// Binds it to the role that is shipped; the operator may bind no other.
pub fn cluster_role_binding(plan: &Plan) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta {
            namespace: None,
            ..metadata(plan, object_name(plan))
        },
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: name::SERVER_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name: object_name(plan),
            namespace: Some(plan.namespace.clone()),
        }]),
    }
}
