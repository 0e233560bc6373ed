#compdef haar
# Completes command lines of haar in zsh.
_haar() {
    local found line
    local -a described
    found="$("${words[1]}" complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2> /dev/null)" || { _files; return }
    for line in ${(f)found}; do
        if [[ "$line" == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            described+=("${line//:/\\:}")
        fi
    done
    _describe -V 'haar' described
}
if [ "$funcstack[1]" = "_haar" ]; then
    _haar "$@"
else
    compdef _haar haar
fi
