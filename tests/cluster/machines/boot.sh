#!/usr/bin/env bash
# A machine, from its start to its end or reboot: boot.sh ROOT NAME GROUP, with systemd as process 1 in
# namespaces of its own. It waits for its network devices, eth0 and eth1, before that.
set -euo pipefail
root=$1 name=$2 group=$3

while read -r _ path type _; do
    [[ $type == cgroup || $type == cgroup2 ]] || continue
    mkdir -p "$path/$group"
    for file in cpuset.cpus cpuset.mems; do
        [[ $type == cgroup2 || ! -e $path/$file ]] || cat "$path/$file" >"$path/$group/$file"
    done
    echo 0 >"$path/$group/cgroup.procs"
done </proc/mounts

export root name
exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private bash -euc '
hostname "$name"
groups=$(grep -E "^[^ ]+ /sys/fs/cgroup[^ ]* cgroup2? " /proc/mounts)
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
if [[ $groups == *" /sys/fs/cgroup cgroup2 "* ]]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 groups "$root/sys/fs/cgroup"
    while read -r _ path type _; do
        kind=${path##*/}
        mkdir "$root/sys/fs/cgroup/$kind"
        options=$kind
        [[ $kind != systemd ]] || options=none,name=systemd
        [[ $type != cgroup2 ]] || options=rw
        mount -t "$type" -o "$options" groups "$root/sys/fs/cgroup/$kind"
    done <<<"$groups"
fi
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty kmsg net/tun; do
    [ -e "/dev/$device" ] || continue
    mkdir -p "$(dirname "$root/dev/$device")"
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "$root/dev/${number#*:}"; done
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs tmp "$root/tmp"

# the kernel is not this machine`s own
mkdir "$root/run/sysctl"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind /proc/sys/net "$root/proc/sys/net" 2>/dev/null || true
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$root/run/sysctl/$(basename "${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "$root/proc/sys/${setting%=*}"
done
until [ -e "$root/sys/class/net/eth0" ] && [ -e "$root/sys/class/net/eth1" ]; do sleep 0.1; done

cd "$root"
pivot_root . .
umount -l .
mount --make-rshared /
exec env -i container=ebpf-lb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
' boot
