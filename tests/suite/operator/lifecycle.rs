//! Create, change, delete; what others change.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_spec_is_a_bridge() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    plane.bridge("empty", json!({}));
    eventually("the Deployment is there", SOON, async || {
        !plane.object("deployment", NAMESPACE, "empty-ipxe-bridge").is_null()
    })
    .await;
    eventually("its state is told", SOON, async || {
        plane.condition("empty", "Ready")[1] == "RollingOut"
    })
    .await;
    println!("{}", plane.kubectl(&["get", "ipxb", "-o", "wide"], None).unwrap());
    println!("{}", plane.kubectl(&["get", "ipxb", "empty", "-o", "yaml"], None).unwrap());
    println!(
        "{}",
        plane
            .kubectl(&["get", "deploy,svc,sa,pdb,netpol,cm,route", "-A", "-o", "wide"], None)
            .unwrap()
    );
}
