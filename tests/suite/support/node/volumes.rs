//! Volumes in folders: written as a kubelet writes them, whole and exchanged in one step.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Pod, Secret, ServiceAccount, Volume};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

type Files = BTreeMap<String, Vec<u8>>;

/// The volumes of one pod, by name.
pub struct Volumes {
    folder: PathBuf,
    client: Client,
    namespace: String,
    account: String,
    volumes: Vec<Volume>,
    /// Folders that stand for images.
    images: BTreeMap<String, PathBuf>,
    written: BTreeMap<String, Files>,
    /// Asked for once: a new one for each look would be a change each time.
    token: Option<String>,
}

impl Volumes {
    /// Images are names of folders.
    pub fn new(folder: PathBuf, client: Client, pod: &Pod, images: &HashMap<String, PathBuf>) -> Self {
        let spec = pod.spec.as_ref().unwrap();
        let of_image = |volume: &Volume| {
            let reference = volume.image.as_ref()?.reference.as_ref().unwrap();
            Some((volume.name.clone(), images.get(reference)?.clone()))
        };
        Self {
            folder,
            client,
            namespace: pod.namespace().unwrap(),
            account: spec.service_account_name.clone().unwrap_or_default(),
            volumes: spec.volumes.clone().unwrap_or_default(),
            images: spec.volumes.iter().flatten().filter_map(of_image).collect(),
            written: BTreeMap::new(),
            token: None,
        }
    }

    /// Where a volume is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.images.get(name).cloned().unwrap_or_else(|| self.folder.join(name))
    }

    /// Writes what changed. Fails with what is missing.
    pub async fn refresh(&mut self) -> Result<(), String> {
        for volume in self.volumes.clone() {
            if let Some(image) = &volume.image {
                match self.images.contains_key(&volume.name) {
                    true => continue,
                    false => return Err(format!("failed to pull image {:?}", image.reference)),
                }
            }
            let path = self.path(&volume.name);
            fs::create_dir_all(&path).unwrap();
            if volume.empty_dir.is_some() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
                continue;
            }
            let files = self.files(&volume).await?;
            if self.written.get(&volume.name) != Some(&files) {
                exchange(&path, &files);
                self.written.insert(volume.name.clone(), files);
            }
        }
        Ok(())
    }

    async fn files(&mut self, volume: &Volume) -> Result<Files, String> {
        if let Some(source) = &volume.config_map {
            return self.config_map(&source.name, source.items.as_deref(), source.optional).await;
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap();
            return self.secret(name, source.items.as_deref(), source.optional).await;
        }
        let mut files = Files::new();
        for source in volume.projected.as_ref().unwrap().sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                files.extend(
                    self.config_map(&source.name, source.items.as_deref(), source.optional)
                        .await?,
                );
            }
            if let Some(source) = &source.secret {
                files.extend(self.secret(&source.name, source.items.as_deref(), source.optional).await?);
            }
            if let Some(source) = &source.service_account_token {
                files.insert(source.path.clone(), self.token().await?.into_bytes());
            }
            if let Some(source) = &source.downward_api {
                for item in source.items.iter().flatten() {
                    assert_eq!(item.field_ref.as_ref().unwrap().field_path, "metadata.namespace");
                    files.insert(item.path.clone(), self.namespace.clone().into_bytes());
                }
            }
        }
        Ok(files)
    }

    async fn config_map(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let Some(object) = api.get_opt(name).await.map_err(|error| error.to_string())? else {
            return missing("configmap", name, optional);
        };
        let data = object.data.unwrap_or_default();
        Ok(chosen(
            data.into_iter().map(|(key, text)| (key, text.into_bytes())).collect(),
            items,
        ))
    }

    async fn secret(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let Some(object) = api.get_opt(name).await.map_err(|error| error.to_string())? else {
            return missing("secret", name, optional);
        };
        let data = object.data.unwrap_or_default();
        Ok(chosen(data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect(), items))
    }

    async fn token(&mut self) -> Result<String, String> {
        if self.token.is_none() {
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
            let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}})).unwrap();
            let request = api
                .create_token_request(&self.account, &PostParams::default(), &request)
                .await
                .map_err(|error| error.to_string())?;
            self.token = Some(request.status.unwrap().token);
        }
        Ok(self.token.clone().unwrap())
    }
}

fn missing(kind: &str, name: &str, optional: Option<bool>) -> Result<Files, String> {
    match optional {
        Some(true) => Ok(Files::new()),
        _ => Err(format!("{kind} {name:?} not found")),
    }
}

fn chosen(all: Files, items: Option<&[KeyToPath]>) -> Files {
    match items {
        None => all,
        Some(items) => items
            .iter()
            .filter_map(|item| Some((item.path.clone(), all.get(&item.key)?.clone())))
            .collect(),
    }
}

/// A new folder, and one link that is turned to it.
fn exchange(path: &Path, files: &Files) {
    let stamp = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let new = path.join(&stamp);
    for (name, bytes) in files {
        let file = new.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::create_dir_all(&new).unwrap();
    symlink(&stamp, path.join("..data_tmp")).unwrap();
    let old = fs::read_link(path.join("..data"));
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    for name in files.keys() {
        let first = name.split('/').next().unwrap();
        if !path.join(first).is_symlink() {
            symlink(format!("..data/{first}"), path.join(first)).unwrap();
        }
    }
    if let Ok(old) = old {
        let _ = fs::remove_dir_all(path.join(old));
    }
}
