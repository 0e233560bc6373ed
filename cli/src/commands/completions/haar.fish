# Completes command lines of haar in fish.
function __haar_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l found ($words[1] complete -- $words[2..-1] "$typed" 2> /dev/null)
    or begin
        __fish_complete_path "$typed"
        return
    end
    for line in $found
        echo $line
    end
end
complete -c haar -f -a '(__haar_complete)'
