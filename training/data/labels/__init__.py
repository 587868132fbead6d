"""Labels of long recordings, as subtitles and annotation programs write them, to segments."""
