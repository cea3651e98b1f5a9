# SPDX-License-Identifier: MIT
"""speckvctl: the administrator's command line for KV-cache pools."""
