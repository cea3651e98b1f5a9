# SPDX-License-Identifier: MIT
# Completion of speckvctl for fish: put it into a folder of $fish_complete_path as "speckvctl.fish".
function __speckvctl_complete
    set -l before (commandline -opc)
    env COMP_WORDS=(string join ' ' -- $before (commandline -ct)) COMP_CWORD=(count $before) \
        _SPECKVCTL_COMPLETE=complete_bash speckvctl 2>/dev/null
end
complete --command speckvctl --arguments '(__speckvctl_complete)'
