#!/usr/bin/env bash
# Builds what run.sh boots: one root file system for all kernels (Debian 12 with what the project
# needs), and each KERNEL named, as the file `kernels` describes it. README.md has the rest.
#
#     ./build.sh [KERNEL...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
store=${EBPF_LB_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/ebpf-lb-kernels}
suite_of_root=bookworm # whose Python and bcc the project stands on
# the archive that this machine's own packages come from
debian=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(SITE)' 'Identifier: Packages' |
    awk -v suite="$suite_of_root" '$1 == suite && $2 == "main" { print $3; exit }')}

# what `make setup` installs, then what the checks and a look around need
read -r -a packages < <(make -s -C "$project" list-packages)
packages+=(
    busybox-static iptables ipset ipvsadm bpftool lksctp-tools wireguard-tools socat iperf3 xz-utils
)
# of the modules, what no guest without hardware can use
useless='^kernel/(sound|drivers/(gpu|media|infiniband|scsi|usb|hid|iio|staging|mmc|mtd|ata|message|input|video|comedi|bluetooth|isdn|accel|net/(ethernet|wireless|usb|can|wwan|fddi|arcnet|hamradio|phy|dsa|ieee802154))|net/(bluetooth|mac80211|wireless|can|nfc|rds|sunrpc|atm|batman-adv|ieee802154)|fs/(xfs|btrfs|ocfs2|gfs2|nfs|nfsd|smb|cifs|ceph|f2fs|jfs|reiserfs|afs|nilfs2|ubifs|orangefs|udf|ntfs3|bcachefs))/'
# what must be there before the root file system is; what is built in needs no module
early=(virtio_pci virtio_blk ext4 9p 9pnet_virtio)

say() { printf 'build: %s\n' "$*" >&2; }

image() { # FILE FOLDER FREE_MIB: an ext4 file system with the folder's content
    local size
    size=$(($(du -sm --apparent-size "$2" | cut -f1) * 5 / 4 + $3))
    rm -f "$1.new"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$2" "$1.new" "${size}M" >/dev/null
    mv "$1.new" "$1"
}

tracked() { # PROJECT: an archive of what git would commit, changed files as they are
    (cd "$1" && git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        xargs -0 ls -d 2>/dev/null | tar -c --no-recursion -T -)
}

inside() { # ROOT COMMAND...: with nothing of this machine's settings
    local root=$1
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot "$root" "$@"
}

root() {
    local locks=("$project"/requirements/{build,dev}.lock) wanted
    wanted=$(cat "${locks[@]}" <(printf '%s\n' "${packages[@]}" "$suite_of_root") | sha256sum)
    if [ -e "$store/root.ext4" ] && [ "$(cat "$store/root.made" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "the root file system"
    mkdir -p "$work/wheels"
    # here, where a registry can be reached; the lock's hashes hold
    python3 -m pip download -q --require-hashes -r "${locks[0]}" -r "${locks[1]}" -d "$work/wheels" \
        --python-version 3.11 --only-binary=:all:
    mmdebstrap --quiet --mode=root --variant=minbase --aptopt='APT::Sandbox::User "root"' \
        --include="$(IFS=,; echo "${packages[*]}")" "$suite_of_root" "$work/root" "$debian"
    cp -r "${locks[@]}" "$work/wheels" "$work/root/tmp/"
    inside "$work/root" /usr/bin/python3 -m venv --system-site-packages /opt/venv
    inside "$work/root" /opt/venv/bin/pip install -q --no-index --find-links /tmp/wheels \
        --require-hashes -r /tmp/build.lock -r /tmp/dev.lock
    mkdir -p "$work/root"/{src,host,usr/lib/modules,var/cache/ebpf-lb}
    # its commands and its name; the files come with each boot
    tracked "$project" | tar -x -C "$work/root/src"
    inside "$work/root" /opt/venv/bin/pip install -q --no-deps --no-index --no-build-isolation -e /src
    find "$work/root/src" -mindepth 1 -delete
    rm -rf "$work/root"/tmp/* "$work/root"/var/cache/apt/archives/*.deb
    cp "$work/root/bin/busybox" "$store/busybox"
    image "$store/root.ext4" "$work/root" 1536
    echo "$wanted" >"$store/root.made"
}

archive() { # FOLDER SOURCE_LINE: apt, with this source and nothing of this machine's
    mkdir -p "$1"/{lists/partial,cache/archives/partial,none,debs}
    : >"$1/status"
    echo "$2" >"$1/sources.list"
    cat >"$1/apt.conf" <<END
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "$1/none";
Dir::State::lists "$1/lists";
Dir::State::status "$1/status";
Dir::Cache "$1/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
END
    export APT_CONFIG=$1/apt.conf
    apt-get -qq update
}

kernel() { # NAME SUITE PACKAGE
    local folder=$store/$1 apt=$work/apt tree=$work/tree found=() packages=("$3") package version wanted
    archive "$apt" "deb $debian $2 main"
    while [ ${#packages[@]} -gt 0 ]; do # the metapackage, and what it stands for
        found+=("${packages[@]}")
        mapfile -t packages < <(
            for package in "${packages[@]}"; do
                apt-cache depends "$package" | sed -nE \
                    's/^ *(Pre)?Depends: (linux-(image|base|binary|modules|modules-extra)-[0-9].*)/\2/p'
            done | sort -u
        )
    done
    wanted="${found[*]} $(sha256sum <"$here/early-init")"
    if [ "$(cat "$folder/made" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "$1: ${found[*]}"
    # shellcheck disable=SC2046 # names of packages
    (cd "$apt/debs" && apt-get -qq download $(printf '%s\n' "${found[@]}" | sort -u))
    for package in "$apt"/debs/*.deb; do
        dpkg-deb -x "$package" "$tree"
    done
    if [ -d "$tree/lib/modules" ]; then # as it was before /usr was merged
        mkdir -p "$tree/usr/lib"
        mv "$tree/lib/modules" "$tree/usr/lib/modules"
    fi
    rm -rf "$tree/lib"
    ln -s usr/lib "$tree/lib"
    local modules=("$tree"/usr/lib/modules/*)
    version=$(basename "${modules[0]}")
    mkdir -p "$folder"
    # older packages have these in /boot, newer ones beside the modules
    cp "$tree/boot/vmlinuz-$version" "$folder/vmlinuz" 2>/dev/null ||
        mv "${modules[0]}/vmlinuz" "$folder/vmlinuz"
    cp "$tree/boot/config-$version" "$folder/config" 2>/dev/null ||
        mv "${modules[0]}/config" "$folder/config"
    (cd "${modules[0]}" && find kernel -name '*.ko*' | grep -E "$useless" | xargs -r rm)
    rm -rf "${modules[0]}"/{build,source}
    depmod -b "$tree" "$version"
    first_files "$version" "$tree" "$work/early"
    (cd "$work/early" && find . | cpio -o -H newc --quiet | gzip -1) >"$folder/early.gz"
    image "$folder/modules.ext4" "$tree/usr/lib/modules" 16
    echo "$version" >"$folder/release"
    echo "$wanted" >"$folder/made"
}

first_files() { # VERSION TREE FOLDER: what finds and mounts the root file system
    local module path
    mkdir -p "$3"/{bin,modules,dev,proc,sys,new}
    cp "$store/busybox" "$3/bin/"
    cp "$here/early-init" "$3/init"
    : >"$3/modules.list"
    for module in "${early[@]}"; do
        modprobe -S "$1" -d "$2" --show-depends "$module" 2>/dev/null || say "$1 has no $module"
    done | sed -n 's/^insmod //p' | awk '!seen[$1]++ {print $1}' | while read -r path; do
        module=$(basename "$path")
        case $path in
        *.xz) xz -dc "$path" >"$3/modules/${module%.xz}" ;;
        *.zst) zstd -qdc "$path" >"$3/modules/${module%.zst}" ;;
        *) cp "$path" "$3/modules/" ;;
        esac
        module=${module%.xz}
        echo "${module%.zst}" >>"$3/modules.list"
    done
}

[ $# -gt 0 ] || set -- 6.1 6.12 newest
mkdir -p "$store"
exec 9>"$store/lock"
flock 9 # checkouts share the store
work=$(mktemp -d "$store/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
root
for one; do
    read -r -a fields < <(grep -E "^${one//./\\.} " "$here/kernels") || {
        echo "build.sh: no kernel $one; $here/kernels has $(grep -oE '^[^# ]+' "$here/kernels" | xargs)" >&2
        exit 2
    }
    kernel "${fields[@]}"
    rm -rf "$work/apt" "$work/tree" "$work/early"
done
