//! The model itself: it shows what it says, and never what it rules out.

use crate::model::{Disk, Image, ROOT, Survival};

const DRAWN: u64 = 2_000;

/// All that may be found after the last operation.
fn states(disk: &Disk) -> Vec<Image> {
    disk.states(disk.log().len(), DRAWN).map(|(_, image)| image).collect()
}

fn bytes_of(image: &Image, path: &str) -> Option<Vec<u8>> {
    let content = image.content(image.find(path)?)?;
    let mut bytes = vec![0xff; usize::try_from(content.size_bytes).unwrap()];
    assert_eq!(content.read(0, &mut bytes), bytes.len());
    Some(bytes)
}

fn sync(disk: &mut Disk, inode: usize) {
    disk.sync_begins(inode, 0);
    disk.sync_ends(inode, 0);
}

#[test]
fn what_was_synced_is_in_every_state() {
    let mut disk = Disk::new();
    let folder = disk.make_folder(ROOT, "folder");
    let file = disk.create(folder, "file");
    disk.write(file, 0, &[7; 3000]);
    for inode in [file, folder, ROOT] {
        sync(&mut disk, inode);
    }
    disk.write(file, 5000, &[8; 10]);
    disk.create(folder, "other");
    for image in states(&disk) {
        let bytes = bytes_of(&image, "folder/file").unwrap();
        assert_eq!(bytes[..3000], [7; 3000]);
    }
    assert!(states(&disk).iter().any(|image| image.find("folder/other").is_none()));
    assert!(states(&disk).iter().any(|image| image.find("folder/other").is_some()));
}

#[test]
fn a_sync_of_a_name_is_none_of_the_bytes_nor_of_the_names_above() {
    let mut disk = Disk::new();
    let folder = disk.make_folder(ROOT, "folder");
    let file = disk.create(folder, "file");
    disk.write(file, 0, &[7; 1024]);
    sync(&mut disk, folder);
    assert!(states(&disk).iter().any(|image| image.find("folder").is_none()));
    sync(&mut disk, ROOT);
    let found: Vec<_> = states(&disk).iter().map(|i| bytes_of(i, "folder/file").unwrap()).collect();
    for expected in [vec![], vec![0; 1024], [vec![7; 512], vec![]].concat(), vec![7; 1024]] {
        assert!(found.contains(&expected), "never {} bytes so", expected.len());
    }
    assert!(found.iter().all(|bytes| bytes.len() % 512 == 0), "torn within a sector");
}

#[test]
fn a_rename_is_the_old_name_or_the_new_one() {
    let mut disk = Disk::new();
    let old = disk.create(ROOT, "target");
    let new = disk.create(ROOT, "temporary");
    sync(&mut disk, ROOT);
    disk.rename(ROOT, "temporary", "target");
    let mut seen = [false; 2];
    for image in states(&disk) {
        let names = (image.find("target"), image.find("temporary"));
        assert!([(Some(old), Some(new)), (Some(new), None)].contains(&names), "{names:?}");
        seen[usize::from(names.1.is_none())] = true;
    }
    assert_eq!(seen, [true; 2]);
    // It is gone only after it came.
    disk.remove(ROOT, "target");
    for image in states(&disk) {
        assert!(image.find("target") == Some(old) || image.find("temporary").is_none());
    }
}

#[test]
fn writes_that_were_not_synced_come_in_any_order() {
    let mut disk = Disk::new();
    let file = disk.create(ROOT, "file");
    sync(&mut disk, ROOT);
    disk.write(file, 0, &[1; 512]);
    disk.write(file, 0, &[2; 512]);
    let found: Vec<_> = states(&disk).iter().map(|image| bytes_of(image, "file")).collect();
    assert!(found.contains(&Some(vec![1; 512])) && found.contains(&Some(vec![2; 512])));
}

#[test]
fn what_is_done_during_a_sync_is_not_covered_by_it() {
    let mut disk = Disk::new();
    disk.sync_begins(ROOT, 1);
    disk.create(ROOT, "file");
    disk.sync_ends(ROOT, 1);
    let n = disk.log().len();
    assert!(disk.state(n, Survival::Synced).find("file").is_none());
    // Of two that overlap the later one covers it.
    disk.sync_begins(ROOT, 2);
    disk.sync_begins(ROOT, 3);
    disk.sync_ends(ROOT, 3);
    let n = disk.log().len();
    assert!(disk.state(n, Survival::Synced).find("file").is_some());
}
